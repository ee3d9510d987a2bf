"""Strands Agents."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from strands import Agent
from strands.models.openai import OpenAIModel

model = OpenAIModel(
    model_id="auto",
    client_args={
        "base_url": os.environ["OPENAI_BASE_URL"],
        "api_key": os.environ["OPENAI_API_KEY"],
    },
)
# [end]
from strands import tool

PACKAGE = "strands-agents"


class Report(BaseModel):
    city: str
    celsius: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def agent(**options):
    return Agent(model=model, callback_handler=None, **options)


def whole():
    return str(agent()(QUESTION))


def stream():
    pieces = []
    Agent(model=model, callback_handler=lambda **event: pieces.append(event.get("data")))(QUESTION)
    return pieces


def tools():
    called = agent(tools=[get_weather])
    called(QUESTION)
    call = next(part["toolUse"] for message in called.messages for part in message["content"] if "toolUse" in part)
    return call["name"], call["input"]


def structured():
    return agent(structured_output_model=Report)(QUESTION).structured_output


report(globals())
