"""The official Python client works as with OpenAI itself, and failures arrive as the exceptions that
applications already catch.

Each test that breaks something uses a model of its own (`EVERYWHERE` and `IN_US_ONLY` in provider.py).
"""

import asyncio
import ssl
import time

import pytest
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    DefaultHttpxClient,
    InternalServerError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)
from openai.types import Model

from gateway import MAX_BODY_KIB, Stage
from provider import (
    BAD_ENTITY,
    BAD_FIELD,
    CONTENT,
    EMBEDDER,
    FORBIDDEN,
    HEALTHY,
    SPARE,
    TOOL_ARGUMENTS,
    USAGE,
    VECTOR,
)

HELLO = [{"role": "user", "content": "How does a bridge stand?"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
# Ten times the promised 100 ms, so that a busy machine fails no test; the measured time is printed.
CANCELLED_WITHIN_S = 1.0


def say(client, model=HEALTHY, **options):
    return client.chat.completions.create(model=model, messages=HELLO, **options)


def joined(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- what works ----------------------------------------------------------------------------


def test_whole_answer(client):
    answer = say(client)
    assert answer.choices[0].message.content == CONTENT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == USAGE["total_tokens"]
    assert answer._request_id
    # Unknown fields arrive unchanged, to the last digit.
    assert answer.model_extra["vendor_note"] == {"kept": 12345678901234567890}


def test_headers_say_what_served_it(client):
    headers = client.chat.completions.with_raw_response.create(model=HEALTHY, messages=HELLO).headers
    sent = {name: headers.get(f"x-tierway-{name}") for name in ["model", "deployment", "tier", "region", "attempts"]}
    assert sent == {
        "model": HEALTHY,
        "deployment": f"us/{HEALTHY}",
        "tier": "default",
        "region": "us-east",
        "attempts": "1",
    }


def test_the_provider_gets_the_request_and_not_the_key(stage, client):
    say(client, SPARE, temperature=0.25, extra_body={"vendor_knob": 12345678901234567890})
    visit = stage.journal.of(SPARE)[-1]
    assert visit.json["vendor_knob"] == 12345678901234567890
    assert visit.json["temperature"] == 0.25
    assert visit.headers["authorization"] == f"Bearer {stage.provider_key}"
    assert stage.key not in str(visit)


def test_stream(client):
    chunks = list(say(client, stream=True))
    assert joined(chunks) == CONTENT
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_stream_of_the_async_client(stage):
    async def run():
        async with AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0) as client:
            return [chunk async for chunk in await say(client, stream=True)]

    assert joined(asyncio.run(run())) == CONTENT


def test_stream_without_usage_never_shows_any(client):
    chunks = list(say(client, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_stream_with_usage_ends_with_it(client):
    chunks = list(say(client, stream=True, stream_options={"include_usage": True}))
    assert joined(chunks) == CONTENT
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [USAGE["total_tokens"]]
    assert chunks[-1].usage and not chunks[-1].choices


def test_tools(client):
    choice = say(client, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [(c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [("weather", TOOL_ARGUMENTS)]


def test_streamed_tools(client):
    chunks = list(say(client, tools=TOOLS, stream=True))
    parts = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    assert parts[0].function.name == "weather"
    assert "".join(part.function.arguments for part in parts) == TOOL_ARGUMENTS
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "base", ["/v1", "/v1/", "", "/", "/v1//", "//v1", "/v1/v1", "/v1/v1/", "/openai/v1", "/api/v1/", "/inference/v1"]
)
def test_a_base_url_that_is_not_quite_right_serves(stage, base):
    with OpenAI(base_url=f"{stage.url}{base}", api_key=stage.key, max_retries=0) as client:
        assert say(client).choices[0].message.content == CONTENT
        assert joined(say(client, stream=True)) == CONTENT
        assert len(client.embeddings.create(model=EMBEDDER, input=["stone"]).data) == 1
        assert HEALTHY in {model.id for model in client.models.list()}
        assert client.models.retrieve(HEALTHY).id == HEALTHY


@pytest.mark.parametrize("base", ["/v1/chat/completions", "/v2", "/nowhere/v1", "/admin", "/metrics", "/admin/v1"])
def test_a_base_url_that_names_nothing_is_explained(stage, base):
    with OpenAI(base_url=f"{stage.url}{base}", api_key=stage.key, max_retries=0) as client:
        # Below /admin nothing is said to who is no operator.
        expected = AuthenticationError if base.startswith("/admin") else NotFoundError
        with pytest.raises(expected) as raised:
            say(client)
        assert expected is AuthenticationError or "A client's base URL is the address" in raised.value.message


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(client, encoding):
    options = {"encoding_format": encoding} if encoding else {}
    answer = client.embeddings.create(model=EMBEDDER, input=["stone", "arch"], **options)
    assert len(answer.data) == 2
    if encoding != "base64":  # if it is requested explicitly, the application decodes it
        assert answer.data[0].embedding == VECTOR


@pytest.mark.parametrize("name", ["auto", "default", "fallback"])
def test_aliases_and_tier_names_are_models(client, name):
    assert say(client, name).choices[0].message.content == CONTENT


def test_models_are_those_this_key_may_use(client):
    ids = {model.id for model in client.models.list()}
    assert {HEALTHY, SPARE, EMBEDDER, "auto", "default", "scene/cut"} <= ids
    assert FORBIDDEN not in ids


def test_a_model_whose_id_holds_a_slash(client):
    assert client.models.retrieve(HEALTHY).id == HEALTHY  # as %2F
    assert client.get(f"/models/{HEALTHY}", cast_to=Model).id == HEALTHY  # as /


def test_over_tls_as_over_plain_http():
    with Stage(tls=True) as stage:
        assert stage.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=stage.certificate)
        with OpenAI(
            base_url=f"{stage.url}/v1",
            api_key=stage.key,
            max_retries=0,
            http_client=DefaultHttpxClient(verify=trusting, trust_env=False),
        ) as client:
            assert say(client).choices[0].message.content == CONTENT
            assert joined(say(client, stream=True)) == CONTENT
            with pytest.raises(APIError):
                joined(say(client, model="scene/cut", stream=True))
        with OpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0) as stranger:
            with pytest.raises(APIConnectionError):
                say(stranger)


# --- what goes wrong, as the exception an application catches --------------------------------


def refused(exception, call, status, code):
    """The error that `call` raises: its class, status, code, request id, and the four keys of its body."""
    with pytest.raises(exception) as caught:
        call()
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert error.request_id
    assert set(error.body) == {"message", "type", "param", "code"}
    return error


def test_unknown_keys_get_one_text(stage, connect):
    unknown = "sk-sdk-" + "0" * 64
    keys = [unknown, "short", stage.key[:-1], stage.key + "0", stage.key.upper()]
    errors = [refused(AuthenticationError, lambda k=key: say(connect(k)), 401, "invalid_api_key") for key in keys]
    assert len({error.message for error in errors}) == 1
    assert not any(key[:12] in errors[0].message for key in keys if key != "short")
    assert errors[0].type == "invalid_request_error"


def test_without_a_valid_key_every_path_is_401(connect):
    stranger = connect("nobody")
    calls = [
        lambda: list(stranger.models.list()),
        lambda: stranger.embeddings.create(model=EMBEDDER, input="x"),
        lambda: stranger.get("/no/such/path", cast_to=object),
    ]
    for call in calls:
        refused(AuthenticationError, call, 401, "invalid_api_key")


def test_a_model_the_policy_forbids(stage, client):
    error = refused(PermissionDeniedError, lambda: say(client, FORBIDDEN), 403, "model_not_allowed")
    assert error.type == "invalid_request_error"
    assert stage.journal.of(FORBIDDEN) == []


def test_an_unknown_model_gets_the_nearest_names(client):
    error = refused(NotFoundError, lambda: say(client, "acme/chat-larg"), 404, "model_not_found")
    assert HEALTHY in error.message
    assert FORBIDDEN not in error.message
    refused(NotFoundError, lambda: client.models.retrieve("acme/nothing"), 404, "model_not_found")


def test_an_unknown_path(client):
    refused(NotFoundError, lambda: client.get("/no/such/path", cast_to=object), 404, "unknown_url")


def test_a_model_that_does_not_serve_the_endpoint(client):
    error = refused(BadRequestError, lambda: client.embeddings.create(model=HEALTHY, input="x"), 400, "invalid_value")
    assert error.param == "model"


@pytest.mark.parametrize(
    ("model", "exception", "status", "body"),
    [
        ("scene/refused-400", BadRequestError, 400, BAD_FIELD),
        ("scene/refused-422", UnprocessableEntityError, 422, BAD_ENTITY),
    ],
)
def test_a_providers_refusal_comes_as_given_and_once(stage, connect, model, exception, status, body):
    error = refused(exception, lambda: say(connect(max_retries=2), model), status, body["code"])
    assert error.body == body
    assert len(stage.journal.of(model)) == 1


def test_a_body_too_large(client):
    huge = [{"role": "user", "content": "x" * (MAX_BODY_KIB * 1024)}]
    call = lambda: client.chat.completions.create(model=HEALTHY, messages=huge)  # noqa: E731
    refused(APIStatusError, call, 413, "request_too_large")


def test_a_spent_budget_is_not_asked_again(stage, connect):
    asked = []
    with DefaultHttpxClient(event_hooks={"request": [asked.append]}) as transport:
        pauper = connect(stage.pauper_key, max_retries=2, http_client=transport)
        error = refused(RateLimitError, lambda: say(pauper, "paid/model"), 429, "insufficient_quota")
    assert error.type == "insufficient_quota"
    assert "0.000001 USD left of 0.000001" in error.message
    assert len(asked) == 1


def test_a_rate_limit_says_when(stage, connect):
    trickle = connect(stage.trickle_key)
    say(trickle)
    error = refused(RateLimitError, lambda: say(trickle), 429, "rate_limit_exceeded")
    assert error.type == "rate_limit_error"
    wait_ms = float(error.response.headers["retry-after-ms"])
    assert 0 < wait_ms <= 60_000
    # Whole seconds, rounded up: a client that waits this long is served.
    assert wait_ms <= float(error.response.headers["retry-after"]) * 1000 < wait_ms + 1000


@pytest.mark.parametrize(("model", "stream"), [("scene/down", False), ("scene/down-streaming", True)])
def test_all_providers_down_costs_an_attempt_each_and_may_pass(stage, connect, model, stream):
    call = lambda: say(connect(max_retries=0), model, stream=stream)  # noqa: E731
    error = refused(InternalServerError, call, 502, "upstream_error")
    assert "x-should-retry" not in error.response.headers
    assert [visit.region for visit in stage.journal.of(model)] == ["us", "eu"]


def test_all_providers_resting_says_when_and_sends_nothing(stage, client):
    model = "scene/resting"
    # Throttled three times in a row it rests, until the time that the provider named.
    for _ in range(3):
        refused(InternalServerError, lambda: say(client, model), 503, "no_deployment_available")
    visits = len(stage.journal.of(model))
    error = refused(InternalServerError, lambda: say(client, model), 503, "no_deployment_available")
    assert 0 < float(error.response.headers["retry-after-ms"]) <= 20_000
    assert len(stage.journal.of(model)) == visits


# --- failures the client does not see --------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["scene/us-error-in-200", "scene/us-cut-early", "scene/us-silent", "scene/us-down"])
def test_a_failure_before_the_first_token_is_invisible(stage, client, model, stream):
    answer = say(client, model, stream=stream)
    content = joined(answer) if stream else answer.choices[0].message.content
    assert content == CONTENT
    assert {visit.region for visit in stage.journal.of(model)} == {"us", "eu"}


# --- a broken stream never ends silently -----------------------------------------------------


@pytest.mark.parametrize("model", ["scene/cut", "scene/stall", "scene/short"])
def test_a_stream_broken_after_its_first_token_raises(client, model):
    seen = []
    with pytest.raises(APIError) as caught:
        for chunk in say(client, model, stream=True):
            seen.append(chunk)
    assert CONTENT.startswith(joined(seen)) and joined(seen)
    assert not any(chunk.choices[0].finish_reason for chunk in seen if chunk.choices)
    if not isinstance(caught.value, APIConnectionError):  # the frame came before the cut
        assert caught.value.code == "upstream_stream_interrupted"


def test_with_splice_a_killed_provider_is_invisible():
    with Stage(stream="splice") as stage, OpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0) as client:
        model, options = "scene/us-killed", {"stream_options": {"include_usage": True}}
        raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, stream=True, **options)
        assert (raw.headers["x-tierway-region"], raw.headers["x-tierway-attempts"]) == ("us-east", "1")
        chunks = list(raw.parse())
        assert joined(chunks) == CONTENT
        assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert [reason for reason in reasons if reason] == ["stop"] and chunks[-1].usage.total_tokens == USAGE["total_tokens"]
        assert [visit.region for visit in stage.journal.of(model)] == ["us", "eu"]
        with client.chat.completions.stream(model=model, messages=HELLO) as stream:
            message = stream.get_final_completion().choices[0].message
        assert (message.role, message.content) == ("assistant", CONTENT)


# --- the client disconnects --------------------------------------------------------------------


def assert_cancelled(stage, model, since):
    assert stage.journal.wait_abandoned(model, CANCELLED_WITHIN_S), "the provider still streams"
    print(f"{model}: cancelled after {(time.monotonic() - since) * 1000:.0f} ms")


def test_an_abandoned_stream_reaches_the_provider(stage, client):
    model = "scene/endless"
    stream = say(client, model, stream=True)
    next(stream)
    stream.close()
    assert_cancelled(stage, model, time.monotonic())


def test_an_abandoned_wait_reaches_the_provider(stage, connect):
    model = "scene/silent"
    with pytest.raises(APITimeoutError):
        say(connect(timeout=0.5), model)
    assert_cancelled(stage, model, time.monotonic())
