"""smolagents."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from smolagents import OpenAIModel

model = OpenAIModel(
    model_id="auto",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
)
# [end]
from smolagents import ChatMessage, MessageRole, tool

PACKAGE = "smolagents"
MESSAGES = [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": QUESTION}])]


class Report(BaseModel):
    city: str
    celsius: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: The city's name.
    """
    return f"Sunny in {city}."


def whole():
    return model.generate(MESSAGES).content


def stream():
    return [delta.content for delta in model.generate_stream(MESSAGES)]


def tools():
    call = model.generate(MESSAGES, tools_to_call_from=[get_weather]).tool_calls[0].function
    return call.name, call.arguments


def structured():
    schema = {"name": "report", "schema": Report.model_json_schema()}
    answer = model.generate(MESSAGES, response_format={"type": "json_schema", "json_schema": schema})
    return Report.model_validate_json(answer.content)


report(globals())
