// The real small model through the gateway.
import assert from "node:assert/strict";
import { test } from "node:test";
import { make, MODEL_URL, user } from "./setup.mjs";

const client = make();
const ask = {
  model: "real", messages: user("Tell me in one sentence what an API gateway does."),
  max_tokens: 40, temperature: 0, cache_prompt: false,
};

async function generated() {
  const text = await (await fetch(`${MODEL_URL}/metrics`)).text();
  return Number(/^llamacpp:tokens_predicted_total (\S+)$/m.exec(text)[1]);
}

test("buffered and streamed say the same", async () => {
  const before = await generated();
  const buffered = await client.chat.completions.create(ask);
  const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  let pieces = 0;
  for await (const chunk of stream) pieces += chunk.choices.length;
  const streamed = await stream.finalChatCompletion();
  assert.ok(buffered.choices[0].message.content.length > 20);
  assert.equal(streamed.choices[0].message.content, buffered.choices[0].message.content);
  assert.equal(streamed.usage.completion_tokens, buffered.usage.completion_tokens);
  assert.equal(streamed.model, "real");
  assert.ok(pieces > 5);
  assert.equal((await generated()) - before, 2 * buffered.usage.completion_tokens);
});

test("structured output", async () => {
  const schema = { type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"], additionalProperties: false };
  const reply = await client.chat.completions.parse({
    model: "real", messages: user("A person: Ann, 31"), max_tokens: 80, temperature: 0,
    response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema } },
  });
  const value = JSON.parse(reply.choices[0].message.content);
  assert.deepEqual(Object.keys(value).sort(), ["age", "name"]);
});
