"""Pydantic AI, its chat model."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(
    "auto",
    provider=OpenAIProvider(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
    ),
)
# [end]
from pydantic_ai import NativeOutput

PACKAGE = "pydantic-ai-slim"


class Report(BaseModel):
    city: str
    celsius: int


async def whole():
    return (await Agent(model).run(QUESTION)).output


async def stream():
    async with Agent(model).run_stream(QUESTION) as answer:
        return [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]


async def tools():
    # An output function is a tool that must be called, and its result is the run's.
    def get_weather(city: str) -> tuple[str, dict]:
        """The weather in a city."""
        return "get_weather", {"city": city}

    return (await Agent(model, output_type=get_weather).run(QUESTION)).output


async def structured():
    return (await Agent(model, output_type=NativeOutput(Report)).run(QUESTION)).output


report(globals())
