"""Anthropic's official Python client, with tools and thinking."""

from checks import KEY, TASK, TOOLS, report

# [connect]
import anthropic


def connect(url):
    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
# [end]

PACKAGE = "anthropic"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = {
    "max_tokens": 4096,
    "thinking": {"type": "adaptive"},
    "tools": [{"name": name, "description": tool.__doc__, "input_schema": SCHEMA} for name, tool in TOOLS.items()],
}


def work(ask):
    """Does the task; `ask` gets a message of the model from a history."""
    history = [{"role": "user", "content": TASK}]
    while True:
        message = ask(history)
        assert message.content[0].type == "thinking" and message.content[0].signature, "it thought"
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return message.content[-1].text
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": TOOLS[call.name](**call.input)} for call in calls
        ]
        history += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]


def whole(url, model):
    with connect(url) as client:
        return work(lambda history: client.messages.create(model=model, messages=history, **ASK))


def stream(url, model):
    def ask(history):
        with client.messages.stream(model=model, messages=history, **ASK) as answer:
            return answer.get_final_message()

    with connect(url) as client:
        return work(ask)


report(globals())
