// Every failure arrives as the error class the SDK has for it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { KEY_EXPIRED, KEY_LIMITED, make, OpenAI, REQUEST_ID, user } from "./setup.mjs";

const client = make();

async function fail(kind, request, using = client) {
  const asked = using.chat.completions.create({ messages: user("x"), ...request });
  const error = await asked.then(() => assert.fail("it went through"), (caught) => caught);
  assert.equal(error.constructor, kind, String(error));
  if (error.status) assert.ok(error.headers.get(REQUEST_ID));
  return error;
}

test("keys that do not open", async () => {
  const wrong = await fail(OpenAI.AuthenticationError, { model: "echo" }, make({ apiKey: "sk-wrong" }));
  assert.equal(wrong.type, "invalid_api_key");
  const expired = await fail(OpenAI.AuthenticationError, { model: "echo" }, make({ apiKey: KEY_EXPIRED }));
  assert.equal(expired.code, "api_key_expired");
});

test("forbidden and unknown models", async () => {
  const forbidden = await fail(OpenAI.PermissionDeniedError, { model: "impatient" }, make({ apiKey: KEY_LIMITED }));
  assert.equal(forbidden.type, "permission_denied");
  assert.equal((await fail(OpenAI.NotFoundError, { model: "nothing" })).type, "model_not_found");
});

test("a request the gateway refuses", async () => {
  assert.match((await fail(OpenAI.BadRequestError, { model: "echo", messages: [] })).message, /messages/);
});

for (const [status, kind] of [
  [400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError], [403, OpenAI.PermissionDeniedError],
  [404, OpenAI.NotFoundError], [409, OpenAI.ConflictError], [422, OpenAI.UnprocessableEntityError],
  [429, OpenAI.RateLimitError],
]) {
  test(`${status} of the upstream`, async () => {
    for (const stream of [false, true]) {
      const error = await fail(kind, { model: `broken/error-${status}`, stream });
      assert.deepEqual([error.status, error.type, error.code, error.param], [status, "upstream_error", `fake_${status}`, "fake_param"]);
      assert.equal(error.headers.get("retry-after"), status === 429 ? "7" : null);
    }
  });
}

test("server errors, refused connections, deadlines", async () => {
  const broken = await fail(OpenAI.InternalServerError, { model: "broken/error-500" });
  assert.deepEqual([broken.status, broken.type], [502, "upstream_error"]);
  const down = await fail(OpenAI.InternalServerError, { model: "unreachable" });
  assert.deepEqual([down.status, down.type], [502, "transport_error"]);
  const late = await fail(OpenAI.InternalServerError, { model: "impatient" });
  assert.deepEqual([late.status, late.type], [504, "timeout"]);
});

test("the client's own deadline", async () => {
  await fail(OpenAI.APIConnectionTimeoutError, { model: "fake/slow" }, make({ timeout: 300 }));
});

test("a cut stream is an error, not a short answer", async () => {
  for (const model of ["broken/cut", "broken/cut-clean"]) {
    let text = "";
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create({ model, messages: user("a b c d e f g"), stream: true });
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    }, OpenAI.APIError);
    assert.match(text, /^a/);
  }
});

test("an unknown path has an envelope", async () => {
  await assert.rejects(client.post("/no/such/path", { body: {} }), (error) => {
    assert.equal(error.constructor, OpenAI.NotFoundError);
    assert.equal(error.code, "not_found");
    return true;
  });
});
