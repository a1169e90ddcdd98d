// Chats, tools, structured output, images: buffered and streamed.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { BASE, journal, KEY_ALL, KEY_LIMITED, make, REQUEST_ID, textOf, tool, user } from "./setup.mjs";

const client = make();
const create = (request, options) => client.chat.completions.create({ messages: user("x"), ...request }, options);
const UNICODE = 'Grüße 世界 👩‍👩‍👧 e\u0301 \u200f\u05e9\u05dc\u05d5\u05dd "quoted" \\ back\nline\ttab';

test("models are listed, filtered by the key", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("echo") && names.includes("impatient"));
  assert.ok(!names.some((name) => name.includes("*")));
  const limited = await make({ apiKey: KEY_LIMITED }).models.list();
  assert.deepEqual(limited.data.map((model) => model.id), ["echo"]);
});

test("buffered", async () => {
  const reply = await create({ model: "echo", messages: user("hello there") });
  assert.equal(reply.choices[0].message.content, "hello there");
  assert.equal(reply.choices[0].finish_reason, "stop");
  assert.equal(reply.model, "echo");
  assert.equal(reply.usage.total_tokens, 4);
  assert.deepEqual(reply.x_vendor_extra, { kept: [1, 2.5] });
});

test("streamed, with usage only when asked for", async () => {
  const chunks = [];
  for await (const chunk of await create({ model: "echo", messages: user("a b c"), stream: true })) chunks.push(chunk);
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "a b c");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.ok(chunks.every((chunk) => chunk.model === "echo"));

  const usages = [];
  const asked = await create({
    model: "echo", messages: user("a b c"), stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of asked) if (chunk.usage) usages.push(chunk.usage.total_tokens);
  assert.deepEqual(usages, [6]);
});

test("the stream helper folds to the buffered reply", async () => {
  const stream = client.chat.completions.stream({ model: "echo", messages: user("one two three") });
  assert.equal(await stream.finalContent(), "one two three");
});

test("headers of the raw response", async () => {
  const { data, response } = await create({ model: "echo" }).withResponse();
  assert.equal(data.choices[0].message.content, "x");
  assert.ok(response.headers.get(REQUEST_ID));
  assert.equal(response.headers.get("x-aisix-call-id"), response.headers.get(REQUEST_ID));
  assert.match(response.headers.get("server"), /^AISIX\//);
});

test("x-api-key opens too, and never reaches the upstream", async () => {
  const other = make({ apiKey: "unused", defaultHeaders: { Authorization: null, "x-api-key": KEY_ALL } });
  const { response } = await other.chat.completions.create({ model: "echo", messages: user("x") }).withResponse();
  const seen = await journal(response.headers.get(REQUEST_ID));
  assert.equal(seen.headers.authorization, "Bearer upstream-secret");
  assert.ok(!JSON.stringify(seen).includes(KEY_ALL));
});

test("unicode survives, wherever the bytes are cut", async () => {
  for (const model of ["echo", "fake/split"]) {
    assert.equal((await create({ model, messages: user(UNICODE) })).choices[0].message.content, UNICODE);
    assert.equal(await textOf(await create({ model, messages: user(UNICODE), stream: true })), UNICODE);
  }
});

test("two choices and logprobs", async () => {
  const reply = await create({ model: "echo", messages: user("a b"), n: 2, logprobs: true });
  assert.deepEqual(reply.choices.map((choice) => [choice.index, choice.message.content]), [[0, "a b"], [1, "a b"]]);
  assert.equal(reply.choices[1].logprobs.content[0].logprob, -0.125);
  const texts = ["", ""];
  for await (const chunk of await create({ model: "echo", messages: user("a b"), n: 2, stream: true })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
  }
  assert.deepEqual(texts, ["a b", "a b"]);
});

test("reasoning_content, whatever the upstream calls it", async () => {
  for (const model of ["fake/reasoning", "fake/reasoning-short"]) {
    const { message } = (await create({ model })).choices[0];
    assert.equal(message.reasoning_content, "Let me think about this");
    assert.equal(message.reasoning, undefined);
    let thought = "";
    for await (const chunk of await create({ model, stream: true })) {
      thought += chunk.choices[0].delta.reasoning_content ?? "";
    }
    assert.equal(thought, "Let me think about this");
  }
});

test("runTools goes round: call, function, result, answer", async () => {
  const asked = [];
  const get_weather = { ...tool("get_weather"), function: {
    ...tool("get_weather").function,
    parse: JSON.parse,
    function: ({ city }) => (asked.push(city), "4 °C, fog"),
  } };
  const runner = client.chat.completions.runTools({ model: "fake/tools", messages: user("weather?"), tools: [get_weather] });
  assert.equal(await runner.finalContent(), "The tool says: 4 °C, fog");
  assert.deepEqual(asked, ["Zürich"]);
});

test("parallel tools, streamed in fragments", async () => {
  const stream = client.chat.completions.stream({
    model: "fake/parallel-tools", messages: user("x"), tools: [tool("get_weather"), tool("get_time")],
  });
  const { choices } = await stream.finalChatCompletion();
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.deepEqual(
    choices[0].message.tool_calls.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]),
    [["call_0", "get_weather", { city: "Zürich" }], ["call_1", "get_time", { city: "Kraków" }]],
  );
});

test("structured output", async () => {
  const schema = { type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"] };
  const reply = await client.chat.completions.parse({
    model: "fake/json", messages: user("x"),
    response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema } },
  });
  assert.deepEqual(JSON.parse(reply.choices[0].message.content), { name: "Zoë", age: 7 });
});

test("images arrive untouched and in order", async () => {
  const url = `data:image/png;base64,${Buffer.from("not really a picture").toString("base64")}`;
  const parts = [
    { type: "image_url", image_url: { url, detail: "high" } },
    { type: "text", text: "what is it?" },
  ];
  const reply = await create({ model: "fake/vision", messages: user(parts) });
  assert.deepEqual(JSON.parse(reply.choices[0].message.content), [
    { type: "image_url", detail: "high", sha256: createHash("sha256").update(url).digest("hex") },
    { type: "text", text: "what is it?" },
  ]);
});

test("a stream left early closes the upstream, and the client goes on", async () => {
  const { data: stream, response } = await create({ model: "fake/slow-stream", stream: true }).withResponse();
  let seen = 0;
  for await (const _ of stream) if (++seen === 5) break;
  assert.equal((await journal(response.headers.get(REQUEST_ID))).ended, "hung up");
  assert.equal((await create({ model: "echo", messages: user("next") })).choices[0].message.content, "next");
});

test("aborting a request by its signal closes the upstream", async () => {
  const abort = new AbortController();
  const headers = { [REQUEST_ID]: "node-aborted-1" };
  const stream = await create({ model: "fake/slow-stream", stream: true }, { signal: abort.signal, headers });
  for await (const _ of stream) abort.abort();
  assert.equal((await journal("node-aborted-1")).ended, "hung up");
});

test("many at once do not mix", async () => {
  const one = async (number) => {
    const messages = user(`n ${number}`);
    if (number % 2) return textOf(await create({ model: "echo", messages, stream: true }));
    return (await create({ model: "echo", messages })).choices[0].message.content;
  };
  const numbers = [...Array(64).keys()];
  assert.deepEqual(await Promise.all(numbers.map(one)), numbers.map((number) => `n ${number}`));
});

test("the plain fetch of the platform sees proper server-sent events", async () => {
  const reply = await fetch(`${BASE}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${KEY_ALL}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "echo", messages: user("a b"), stream: true }),
  });
  assert.match(reply.headers.get("content-type"), /^text\/event-stream/);
  const frames = (await reply.text()).split("\n\n").filter((frame) => frame && !frame.startsWith(":"));
  assert.equal(frames.at(-1), "data: [DONE]");
  for (const frame of frames.slice(0, -1)) assert.equal(JSON.parse(frame.replace(/^data: /, "")).model, "echo");
});
