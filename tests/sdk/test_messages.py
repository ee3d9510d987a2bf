"""Anthropic's official Python client works as with Anthropic itself, and failures arrive as the exceptions that
applications already catch."""

import json

import anthropic
import pytest
from messages_provider import MODELS, TEXT, USAGE

HELLO = [{"role": "user", "content": "How does a bridge stand?"}]
TOOLS = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
COUNTED = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"]


@pytest.fixture
def client(stage):
    """As an application would make it: base URL and key, nothing else. Retries are off unless a test is about them."""
    with anthropic.Anthropic(base_url=stage.url, api_key=stage.key, max_retries=0, timeout=30.0) as client:
        yield client


def say(client, model="claude/whole", **options):
    return client.messages.create(model=model, max_tokens=64, messages=HELLO, **options)


def counts(usage):
    return {name: getattr(usage, name) for name in COUNTED}


EXPECTED = {name: USAGE[name] for name in COUNTED}


def test_a_whole_answer(client, stage):
    message = say(client, system="Be brief.")
    assert (message.content[0].text, message.stop_reason, message.model) == (TEXT, "end_turn", "claude/whole")
    assert counts(message.usage) == EXPECTED
    assert message.usage.cache_creation.ephemeral_1h_input_tokens == 6
    assert message._request_id == "req_theirs"
    head = stage.anthropic.heads[-1]
    assert head["x-api-key"] == stage.provider_key and "authorization" not in head
    assert head["anthropic-version"]
    assert stage.key not in json.dumps(stage.anthropic.heads)


def test_a_stream(client):
    with client.messages.stream(model="claude/whole", max_tokens=64, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == TEXT
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert counts(message.usage) == EXPECTED
    events = [event.type for event in say(client, stream=True)]
    assert (events[0], events[-1]) == ("message_start", "message_stop")


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_and_thinking(client, streamed):
    options = {"tools": TOOLS, "thinking": {"type": "adaptive"}}
    if streamed:
        with client.messages.stream(model="claude/whole", max_tokens=64, messages=HELLO, **options) as stream:
            message = stream.get_final_message()
    else:
        message = say(client, **options)
    thinking, text, tool = message.content
    assert (thinking.thinking, thinking.signature) == ("Hm.", "EqQBsig==")
    assert (text.text, tool.name, tool.input) == (TEXT, "weather", {"city": "Zürich"})
    assert message.stop_reason == "tool_use"


def test_what_is_not_general_yet(client, stage):
    client.beta.messages.create(model="claude/whole", max_tokens=64, messages=HELLO, betas=["a-2026-01-01"])
    assert stage.anthropic.heads[-1]["anthropic-beta"] == "a-2026-01-01"


def test_tokens_are_counted(client):
    assert client.messages.count_tokens(model="claude/whole", messages=HELLO).input_tokens == 2095


def test_models_are_listed(client):
    listed = [model.id for model in client.models.list(limit=2)]
    assert set(MODELS) <= set(listed) and len(listed) == len(set(listed)), "every page is read, and none twice"
    model = client.models.retrieve("claude/whole")
    assert (model.type, model.display_name) == ("model", "claude/whole")


@pytest.mark.parametrize(
    ("options", "raised", "kind"),
    [
        ({"model": "claude/refuses"}, anthropic.BadRequestError, "invalid_request_error"),
        ({"model": "claude/unknown"}, anthropic.NotFoundError, "not_found_error"),
        ({"model": "acme/chat-large"}, anthropic.BadRequestError, "invalid_request_error"),
        ({"model": "claude/busy"}, anthropic.InternalServerError, "api_error"),
    ],
)
def test_errors_are_raised_by_their_class(client, options, raised, kind):
    with pytest.raises(raised) as info:
        say(client, **options)
    assert info.value.body["type"] == "error"
    assert info.value.body["error"]["type"] == kind
    assert info.value.request_id


def test_a_wrong_key_is_raised(client):
    with pytest.raises(anthropic.AuthenticationError):
        say(client.with_options(api_key="sk-wrong"))


@pytest.mark.parametrize("model", ["claude/cut", "claude/overloaded"])
def test_a_stream_that_breaks_raises(client, model):
    words = []
    with pytest.raises(anthropic.APIStatusError) as info:
        for event in say(client, model=model, stream=True):
            if event.type == "content_block_delta":
                words.append(event.delta.text)
    assert words and TEXT.startswith("".join(words)), "what came before is kept"
    assert info.value.body["error"]["type"] == "api_error"
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(
        model=model, max_tokens=64, messages=HELLO
    ) as stream:
        stream.get_final_message()
