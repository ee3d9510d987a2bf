"""Haystack."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

model = OpenAIChatGenerator(
    model="auto",
    api_base_url=os.environ["OPENAI_BASE_URL"],
    api_key=Secret.from_env_var("OPENAI_API_KEY"),
)
# [end]
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function

PACKAGE = "haystack-ai"
MESSAGES = [ChatMessage.from_user(QUESTION)]


class Report(BaseModel):
    city: str
    celsius: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def whole():
    return model.run(MESSAGES)["replies"][0].text


def stream():
    pieces = []
    model.run(MESSAGES, streaming_callback=lambda chunk: pieces.append(chunk.content))
    return pieces


def tools():
    weather = create_tool_from_function(get_weather)
    answer = model.run(MESSAGES, tools=[weather], generation_kwargs={"tool_choice": "required"})
    call = answer["replies"][0].tool_calls[0]
    return call.tool_name, call.arguments


def structured():
    answer = model.run(MESSAGES, generation_kwargs={"response_format": Report})
    return Report.model_validate_json(answer["replies"][0].text)


report(globals())
