// Clients for the gateway that run.py has started; the addresses and keys are in the environment.
import OpenAI from "openai";

const { GATEWAY_URL, FAKE_URL, MODEL_URL, KEY_ALL, KEY_LIMITED, KEY_EXPIRED } = process.env;

export { OpenAI, KEY_ALL, KEY_LIMITED, KEY_EXPIRED, MODEL_URL };
export const REQUEST_ID = "x-aisix-request-id";
export const BASE = `${GATEWAY_URL}/v1`;

// An ordinary client; retries off, so that each test sees the first answer.
export const make = (options = {}) =>
  new OpenAI({ baseURL: BASE, apiKey: KEY_ALL, maxRetries: 0, timeout: 30_000, ...options });

export const user = (content) => [{ role: "user", content }];

// The joined text of the first choice of a stream.
export async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) {
    for (const choice of chunk.choices) if (choice.index === 0) text += choice.delta.content ?? "";
  }
  return text;
}

// What the fake upstream saw of a request, once it has ended.
export async function journal(requestId) {
  const reply = await fetch(`${FAKE_URL}/_journal/${requestId}`);
  return reply.json();
}

export const tool = (name) => ({
  type: "function",
  function: {
    name,
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
});
