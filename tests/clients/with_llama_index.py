"""LlamaIndex."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model="auto",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
)
# [end]
from llama_index.core.tools import FunctionTool

PACKAGE = "llama-index-llms-openai-like"


class Report(BaseModel):
    city: str
    celsius: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def whole():
    return model.complete(QUESTION).text


def stream():
    return [chunk.delta for chunk in model.stream_complete(QUESTION)]


def tools():
    tool = FunctionTool.from_defaults(get_weather)
    answer = model.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    call = model.get_tool_calls_from_response(answer)[0]
    return call.tool_name, call.tool_kwargs


def structured():
    return model.as_structured_llm(Report).complete(QUESTION).raw


report(globals())
