"""Agno."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from agno.agent import Agent
from agno.models.openai.like import OpenAILike

model = OpenAILike(
    id="auto",
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
)
# [end]
from agno.tools import tool

PACKAGE = "agno"


class Report(BaseModel):
    city: str
    celsius: int


@tool(stop_after_tool_call=True)
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def agent(**options):
    return Agent(model=model, telemetry=False, **options)


def whole():
    return agent().run(QUESTION).content


def stream():
    return [event.content for event in agent().run(QUESTION, stream=True) if event.event == "RunContent"]


def tools():
    answer = agent(tools=[get_weather], tool_choice="required").run(QUESTION)
    call = answer.tools[0]
    return call.tool_name, call.tool_args


def structured():
    return agent(output_schema=Report).run(QUESTION).content


report(globals())
