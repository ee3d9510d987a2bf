// The official Node client works as with OpenAI itself, and failures arrive as the errors that
// applications already catch.
//
// gateway.py starts gateway and providers, then this file. Each test that breaks something uses a model of
// its own (EVERYWHERE and IN_US_ONLY in provider.py).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { SDK_BASE_URL, SDK_KEY, SDK_TRICKLE_KEY, SDK_JOURNAL_URL } = process.env;

const HEALTHY = "acme/chat-large";
const EMBEDDER = "acme/embed-small";
const RESPONDER = "acme/responder";
const FORBIDDEN = "acme/forbidden";
const CONTENT = "The bridge stands because every stone leans – 石 – on another.";
const TOOL_ARGUMENTS = '{"city": "Zürich", "unit": "celsius"}';
const HELLO = [{ role: "user", content: "How does a bridge stand?" }];
const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
// Ten times the promised 100 ms, so that a busy machine fails no test; the measured time is printed.
const CANCELLED_WITHIN_S = 1;

// As in an application: base URL and key. Retries are off unless a test is about them.
const connect = (options = {}) =>
  new OpenAI({ baseURL: SDK_BASE_URL, apiKey: SDK_KEY, maxRetries: 0, timeout: 30_000, ...options });
const client = connect();

const say = (model = HEALTHY, options = {}, from = client, request = {}) =>
  from.chat.completions.create({ model, messages: HELLO, ...options }, request);
const collect = async (stream) => {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
};
const joined = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
const journal = async (model, wait = "") => {
  const asked = new URLSearchParams({ model, ...(wait && { wait, within_s: String(CANCELLED_WITHIN_S) }) });
  return (await fetch(`${SDK_JOURNAL_URL}?${asked}`)).json();
};

// --- what works ----------------------------------------------------------------------------

test("a whole answer", async () => {
  const answer = await say();
  assert.equal(answer.choices[0].message.content, CONTENT);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, 21);
  assert.ok(answer._request_id);
});

test("a stream", async () => {
  const chunks = await collect(say(HEALTHY, { stream: true }));
  assert.equal(joined(chunks), CONTENT);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
});

for (const base of ["", "/", "/v1/", "/v1//", "/v1/v1", "//v1", "/openai/v1", "/api/v1/"]) {
  test(`a base URL that ends in '${base}' serves`, async () => {
    const from = connect({ baseURL: new URL(SDK_BASE_URL).origin + base });
    assert.equal((await say(HEALTHY, {}, from)).choices[0].message.content, CONTENT);
    assert.equal(joined(await collect(say(HEALTHY, { stream: true }, from))), CONTENT);
    assert.equal((await from.models.retrieve(HEALTHY)).id, HEALTHY);
  });
}

test("the stream helper", async () => {
  const stream = client.chat.completions.stream({ model: HEALTHY, messages: HELLO });
  assert.equal((await stream.finalChatCompletion()).choices[0].message.content, CONTENT);
});

test("a stream without usage never shows any", async () => {
  const chunks = await collect(say(HEALTHY, { stream: true }));
  assert.ok(chunks.every((chunk) => chunk.usage == null && chunk.choices.length > 0));
});

test("a stream with usage ends with it", async () => {
  const chunks = await collect(say(HEALTHY, { stream: true, stream_options: { include_usage: true } }));
  assert.deepEqual(chunks.flatMap((chunk) => chunk.usage?.total_tokens ?? []), [21]);
  assert.equal(chunks.at(-1).usage.total_tokens, 21);
  assert.deepEqual(chunks.at(-1).choices, []);
});

test("tools", async () => {
  const [choice] = (await say(HEALTHY, { tools: TOOLS })).choices;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.deepEqual(choice.message.tool_calls.map((call) => call.function), [
    { name: "weather", arguments: TOOL_ARGUMENTS },
  ]);
});

test("streamed tools", async () => {
  const chunks = await collect(say(HEALTHY, { tools: TOOLS, stream: true }));
  const parts = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
  assert.equal(parts[0].function.name, "weather");
  assert.equal(parts.map((part) => part.function.arguments).join(""), TOOL_ARGUMENTS);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model: EMBEDDER, input: ["stone", "arch"] });
  assert.deepEqual(answer.data.map((item) => item.embedding), [[0.5, -0.25, 1, 0], [0.5, -0.25, 1, 0]]);
});

test("models are those this key may use, ids with slashes included", async () => {
  const ids = (await collect(client.models.list())).map((model) => model.id);
  for (const id of [HEALTHY, EMBEDDER, "auto", "default"]) assert.ok(ids.includes(id), id);
  assert.ok(!ids.includes(FORBIDDEN));
  assert.equal((await client.models.retrieve(HEALTHY)).id, HEALTHY);
  assert.equal((await client.get(`/models/${HEALTHY}`)).id, HEALTHY);
});

// --- what goes wrong, as the error an application catches ------------------------------------

// The error that a call throws: its class, status, code, request id, and the four keys of its body.
const refused = async (kind, status, code, call) => {
  const error = await call().then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  assert.ok(error instanceof kind, String(error));
  assert.deepEqual([error.status, error.code], [status, code]);
  assert.ok(error.requestID);
  assert.deepEqual(Object.keys(error.error).sort(), ["code", "message", "param", "type"]);
  return error;
};

test("a bad key", async () => {
  const unknown = "sk-sdk-" + "0".repeat(64);
  const error = await refused(OpenAI.AuthenticationError, 401, "invalid_api_key", () =>
    say(HEALTHY, {}, connect({ apiKey: unknown })),
  );
  assert.ok(!error.message.includes(unknown));
});

test("a model the policy forbids", () =>
  refused(OpenAI.PermissionDeniedError, 403, "model_not_allowed", () => say(FORBIDDEN)));

test("an unknown model gets the nearest names", async () => {
  const error = await refused(OpenAI.NotFoundError, 404, "model_not_found", () => say("acme/chat-larg"));
  assert.ok(error.message.includes(HEALTHY));
});

test("an unknown path", () => refused(OpenAI.NotFoundError, 404, "unknown_url", () => client.get("/no/such/path")));

for (const [model, kind, status, code] of [
  ["scene/refused-400", OpenAI.BadRequestError, 400, "decimal_above_max_value"],
  ["scene/refused-422", OpenAI.UnprocessableEntityError, 422, "unprocessable"],
]) {
  test(`a provider's ${status} comes as given and once`, async () => {
    await refused(kind, status, code, () => say(model, {}, connect({ maxRetries: 2 })));
    assert.equal((await journal(model)).visits.length, 1);
  });
}

test("a body too large", () =>
  refused(OpenAI.APIError, 413, "request_too_large", () =>
    say(HEALTHY, { messages: [{ role: "user", content: "x".repeat(64 * 1024) }] }),
  ));

test("a rate limit says when", async () => {
  const trickle = connect({ apiKey: SDK_TRICKLE_KEY });
  await say(HEALTHY, {}, trickle);
  const error = await refused(OpenAI.RateLimitError, 429, "rate_limit_exceeded", () => say(HEALTHY, {}, trickle));
  const waitMs = Number(error.headers.get("retry-after-ms"));
  assert.ok(waitMs > 0 && waitMs <= 60_000, String(waitMs));
});

for (const [model, stream] of [["scene/down", false], ["scene/down-streaming", true]]) {
  test(`all providers down costs an attempt each and may pass (stream: ${stream})`, async () => {
    const once = connect({ maxRetries: 0 });
    const error = await refused(OpenAI.InternalServerError, 502, "upstream_error", () => say(model, { stream }, once));
    assert.equal(error.headers.get("x-should-retry"), null);
    assert.deepEqual((await journal(model)).visits.map((visit) => visit.region), ["us", "eu"]);
  });
}

test("all providers resting says when and sends nothing", async () => {
  const model = "scene/resting";
  // Throttled three times in a row it rests, until the time that the provider named.
  for (let times = 0; times < 3; times++) await assert.rejects(say(model));
  const before = (await journal(model)).visits.length;
  const error = await refused(OpenAI.InternalServerError, 503, "no_deployment_available", () => say(model));
  assert.ok(Number(error.headers.get("retry-after-ms")) > 0);
  assert.equal((await journal(model)).visits.length, before);
});

// --- conversations ---------------------------------------------------------------------------

test("a conversation is made, gone on with and deleted", async () => {
  const hello = { type: "message", role: "user", content: "How does a bridge stand?" };
  const { id } = await client.conversations.create({ items: [hello], metadata: { topic: "demo" } });
  assert.deepEqual((await client.conversations.update(id, { metadata: { topic: "bridges" } })).metadata, { topic: "bridges" });
  const ask = { model: RESPONDER, input: "And a tower?" };
  const whole = await client.responses.create({ ...ask, conversation: id });
  assert.deepEqual([whole.output_text, whole.conversation], [CONTENT, { id }]);
  const events = await collect(client.responses.create({ ...ask, conversation: { id }, stream: true }));
  assert.equal(events.at(-1).type, "response.completed");
  const added = await client.conversations.items.create(id, { items: [{ ...hello, content: "Thanks" }] });
  const items = await collect(client.conversations.items.list(id, { order: "asc", limit: 2 }));
  const texts = items.map((item) => item.content[0].text);
  assert.deepEqual(texts, [hello.content, ask.input, CONTENT, ask.input, CONTENT, "Thanks"]);
  const last = { conversation_id: id };
  assert.deepEqual(await client.conversations.items.retrieve(added.data[0].id, last), items.at(-1));
  assert.equal((await client.conversations.items.delete(added.data[0].id, last)).id, id);
  assert.equal((await client.conversations.delete(id)).deleted, true);
  const gone = { ...ask, conversation: id };
  await refused(OpenAI.NotFoundError, 404, "conversation_not_found", () => client.conversations.retrieve(id));
  await refused(OpenAI.NotFoundError, 404, "conversation_not_found", () => client.responses.create(gone));
});

test("a conversation without a body, and one for a model", async () => {
  for (const [body, options] of [[null, {}], [{}, { query: { model: RESPONDER } }]]) {
    const made = await client.conversations.create(body, options);
    assert.equal(made.object, "conversation");
    await client.conversations.delete(made.id);
  }
});

// --- failures the client does not see --------------------------------------------------------

for (const model of ["scene/us-error-in-200", "scene/us-cut-early", "scene/us-silent", "scene/us-down"]) {
  test(`a failure before the first token is invisible: ${model}`, async () => {
    assert.equal((await say(model)).choices[0].message.content, CONTENT);
    assert.equal(joined(await collect(say(model, { stream: true }))), CONTENT);
    const regions = (await journal(model)).visits.map((visit) => visit.region);
    assert.ok(regions.includes("us") && regions.includes("eu"), String(regions));
  });
}

// --- a broken stream never ends silently -----------------------------------------------------

for (const model of ["scene/cut", "scene/stall", "scene/short"]) {
  test(`a stream broken after its first token throws: ${model}`, async () => {
    const seen = [];
    await assert.rejects(async () => {
      for await (const chunk of await say(model, { stream: true })) seen.push(chunk);
    });
    assert.ok(joined(seen).length > 0 && CONTENT.startsWith(joined(seen)));
    assert.ok(seen.every((chunk) => !chunk.choices[0]?.finish_reason));
  });
}

// --- the client disconnects --------------------------------------------------------------------

const assertCancelled = async (model) => {
  const since = performance.now();
  assert.ok((await journal(model, "abandoned")).happened, "the provider still streams");
  console.log(`${model}: cancelled after ${Math.round(performance.now() - since)} ms`);
};

test("an abandoned stream reaches the provider", async () => {
  const model = "scene/endless";
  for await (const _ of await say(model, { stream: true })) break;
  await assertCancelled(model);
});

test("an abandoned wait reaches the provider", async () => {
  const model = "scene/silent";
  const controller = new AbortController();
  const answer = say(model, {}, client, { signal: controller.signal });
  assert.ok((await journal(model, "visited")).happened);
  controller.abort();
  await assert.rejects(answer, OpenAI.APIUserAbortError);
  await assertCancelled(model);
});
