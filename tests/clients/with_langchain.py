"""LangChain (Python)."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="auto",
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
)
# [end]

PACKAGE = "langchain-openai"


class Report(BaseModel):
    city: str
    celsius: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def whole():
    return model.invoke(QUESTION).content


def stream():
    return [chunk.content for chunk in model.stream(QUESTION)]


def tools():
    call = model.bind_tools([get_weather], tool_choice="required").invoke(QUESTION).tool_calls[0]
    return call["name"], call["args"]


def structured():
    return model.with_structured_output(Report).invoke(QUESTION)


report(globals())
