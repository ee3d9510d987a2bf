"""OpenAI's conversations by the official Python client: made, read, changed, gone on with and deleted, by their own key alone."""

import asyncio

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from provider import CONTENT, HEALTHY, RESPONDER

HELLO = {"type": "message", "role": "user", "content": "How does a bridge stand?"}


def respond(client, conversation, **options):
    return client.responses.create(model=RESPONDER, input="And a tower?", conversation=conversation, **options)


def texts(items) -> list[str]:
    return [item.content[0].text for item in items]


def test_a_conversation_is_made_read_changed_and_deleted(client):
    made = client.conversations.create(metadata={"topic": "demo"}, items=[HELLO])
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
    assert client.conversations.retrieve(made.id) == made
    assert client.conversations.update(made.id, metadata={"topic": "bridges"}).metadata == {"topic": "bridges"}
    deleted = client.conversations.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(NotFoundError) as caught:
        client.conversations.retrieve(made.id)
    assert (caught.value.code, caught.value.param) == ("conversation_not_found", "conversation_id")


def test_items_are_added_listed_read_and_deleted(client):
    conversation = client.conversations.create().id
    added = client.conversations.items.create(conversation, items=[{**HELLO, "content": word} for word in "abc"])
    assert texts(added.data) == ["a", "b", "c"]
    # Three pages, one request each.
    assert texts(client.conversations.items.list(conversation, limit=1, order="asc")) == ["a", "b", "c"]
    assert texts(client.conversations.items.list(conversation)) == ["c", "b", "a"]
    first = added.data[0]
    include = ["message.output_text.logprobs"]
    assert client.conversations.items.retrieve(first.id, conversation_id=conversation, include=include) == first
    assert client.conversations.items.delete(first.id, conversation_id=conversation).id == conversation
    assert texts(client.conversations.items.list(conversation, order="asc")) == ["b", "c"]
    with pytest.raises(NotFoundError) as caught:
        client.conversations.items.retrieve(first.id, conversation_id=conversation)
    assert (caught.value.code, caught.value.param) == ("item_not_found", "item_id")


def test_responses_go_on_with_it_whole_and_streamed(client, stage):
    conversation = client.conversations.create(items=[HELLO]).id
    whole = respond(client, conversation)
    assert (whole.output_text, whole.conversation.id) == (CONTENT, conversation)
    events = list(respond(client, {"id": conversation}, stream=True))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == CONTENT

    async def run():
        async with AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0) as asynchronous:
            stream = await respond(asynchronous, conversation, stream=True, store=False)
            types = [event.type async for event in stream]
            items = [item async for item in asynchronous.conversations.items.list(conversation, order="asc")]
            return types, items

    types, items = asyncio.run(run())
    assert types[-1] == "response.completed"
    assert texts(items) == [HELLO["content"], *["And a tower?", CONTENT] * 3]
    # What was answered may be referred to.
    client.conversations.items.retrieve(items[-1].id, conversation_id=conversation)


def test_it_is_nobody_elses(client, connect, stage):
    conversation = client.conversations.create(items=[HELLO]).id
    item = next(iter(client.conversations.items.list(conversation))).id
    own = client.conversations.create().id
    stranger = connect(stage.pauper_key)
    for somebody, name in [(stranger, conversation), (client, "conv_of_nobody")]:
        for asked in [
            lambda: somebody.conversations.retrieve(name),
            lambda: somebody.conversations.update(name, metadata={}),
            lambda: somebody.conversations.delete(name),
            lambda: somebody.conversations.items.list(name),
            lambda: somebody.conversations.items.create(name, items=[HELLO]),
            lambda: somebody.conversations.items.retrieve(item, conversation_id=name),
            lambda: somebody.conversations.items.delete(item, conversation_id=name),
        ]:
            with pytest.raises(NotFoundError) as caught:
                asked()
            assert caught.value.code == "conversation_not_found"
    with pytest.raises(NotFoundError) as caught:
        respond(client, "conv_of_nobody")
    assert (caught.value.code, caught.value.param) == ("conversation_not_found", "conversation")
    with pytest.raises(NotFoundError):
        client.conversations.items.retrieve("msg_of_nobody", conversation_id=own)
    assert client.conversations.retrieve(conversation).id == conversation


def test_it_is_made_for_a_model_that_serves_it(client):
    made = client.conversations.create(extra_query={"model": RESPONDER})
    assert respond(client, made.id).output_text == CONTENT
    with pytest.raises(BadRequestError) as caught:
        client.conversations.create(extra_query={"model": HEALTHY})
    assert caught.value.param == "model"
