"""OpenAI's Responses by the official Python client: whole, streamed, refused, broken, and conversations that go on.

Each test that breaks something uses a model of its own (`EVERYWHERE` in provider.py).
"""

import asyncio

import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError

from provider import BAD_FIELD, CONTENT, HEALTHY, RESPONDER, WORDS


def respond(client, model=RESPONDER, **options):
    return client.responses.create(model=model, input="How does a bridge stand?", **options)


def joined(events) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_whole_response(client):
    response = respond(client)
    assert response.output_text == CONTENT
    assert (response.status, response.usage.total_tokens) == ("completed", 21)
    # Unknown fields arrive unchanged, to the last digit.
    assert response.model_extra["vendor_note"] == {"kept": 12345678901234567890}


def test_streamed_response(client):
    events = list(respond(client, stream=True))
    assert joined(events) == CONTENT
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == CONTENT


def test_the_stream_helper_and_the_async_client(stage, client):
    with client.responses.stream(model=RESPONDER, input="Hi") as stream:
        assert joined(stream) == CONTENT
        assert stream.get_final_response().usage.output_tokens == 10

    async def run():
        async with AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0) as asynchronous:
            return [event async for event in await respond(asynchronous, stream=True)]

    assert joined(asyncio.run(run())) == CONTENT


def test_a_conversation_goes_on_where_it_began(client, connect, stage):
    first = respond(client)
    assert respond(client, previous_response_id=first.id).status == "completed"
    streamed = list(respond(client, previous_response_id=first.id, stream=True))[-1].response
    item = {"type": "item_reference", "id": "msg_scripted"}
    again = client.responses.create(model=RESPONDER, input=[item, {"role": "user", "content": "And?"}])
    assert again.status == streamed.status == "completed"
    with pytest.raises(NotFoundError) as caught:
        respond(client, previous_response_id="resp_of_somebody_else")
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_refusals_are_the_exceptions_that_applications_catch(client):
    with pytest.raises(BadRequestError) as caught:
        respond(client, "scene/response-refused")
    assert caught.value.body == BAD_FIELD
    for options in [{"background": True, "store": False}, {"prompt": {"id": "pmpt_1"}}]:
        with pytest.raises(BadRequestError) as caught:
            respond(client, **options)
        assert caught.value.param == next(iter(options))
    with pytest.raises(BadRequestError) as caught:
        respond(client, HEALTHY)
    assert caught.value.param == "model"


def test_a_stream_broken_after_its_first_token_raises(client):
    received = []
    with pytest.raises(APIError) as caught:
        for event in respond(client, "scene/response-cut", stream=True):
            received.append(event)
    assert joined(received) == "".join(WORDS[:3])
    assert not any(event.type == "response.completed" for event in received)
    assert caught.value.code == "upstream_stream_interrupted"


def test_a_failure_that_the_provider_says_arrives_as_it_said_it(client):
    events = list(respond(client, "scene/response-failed", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message == "The model gave up."


def test_a_stored_response_is_read_and_deleted_by_its_own_key(client, connect, stage):
    first = respond(client)
    assert client.responses.retrieve(first.id).output_text == CONTENT
    assert [item.id for item in client.responses.input_items.list(first.id)] == ["msg_input"]
    for somebody, name in [(connect(stage.pauper_key), first.id), (client, "resp_of_nobody")]:
        with pytest.raises(NotFoundError) as caught:
            somebody.responses.retrieve(name)
        assert caught.value.code == "response_not_found"
    client.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(first.id)


def test_a_background_response_is_polled_or_cancelled(client):
    response = respond(client, background=True)
    polls = 0
    while response.status in ("queued", "in_progress"):
        response = client.responses.retrieve(response.id)
        polls += 1
    assert (polls, response.status, response.output_text) == (2, "completed", CONTENT)
    assert client.responses.cancel(respond(client, background=True).id).status == "cancelled"
