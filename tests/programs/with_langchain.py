"""LangChain (Python) in its Responses mode."""

from checks import KEY, TASK, TOOLS, report

# [connect]
from langchain_openai import ChatOpenAI


def connect(url, model):
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=KEY, use_responses_api=True, max_retries=0)
# [end]
from langchain_core.messages import HumanMessage, ToolMessage

PACKAGE = "langchain-openai"


def work(url, model, ask):
    """Does the task; `ask` gets a turn of the model from a history."""
    bound, history = connect(url, model).bind_tools(list(TOOLS.values())), [HumanMessage(TASK)]
    while True:
        turn = ask(bound, history)
        if not turn.tool_calls:
            return turn.text
        results = [ToolMessage(TOOLS[call["name"]](**call["args"]), tool_call_id=call["id"]) for call in turn.tool_calls]
        history += [turn, *results]


def whole(url, model):
    return work(url, model, lambda bound, history: bound.invoke(history))


def stream(url, model):
    def ask(bound, history):
        chunks = bound.stream(history)
        turn = next(chunks)
        for chunk in chunks:
            turn += chunk
        return turn

    return work(url, model, ask)


report(globals())
