"""OpenAI Agents SDK, its chat completions model."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from agents import Agent, OpenAIChatCompletionsModel, Runner
from openai import AsyncOpenAI

model = OpenAIChatCompletionsModel(
    model="auto",
    openai_client=AsyncOpenAI(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
    ),
)
# [end]
from agents import ModelSettings, function_tool, set_tracing_disabled

PACKAGE = "openai-agents"
# Traces would be sent to OpenAI.
set_tracing_disabled(True)


class Report(BaseModel):
    city: str
    celsius: int


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


async def run(**options):
    return await Runner.run(Agent(name="reporter", model=model, **options), QUESTION)


async def whole():
    return (await run()).final_output


async def stream():
    answer = Runner.run_streamed(Agent(name="reporter", model=model), QUESTION)
    events = [event.data async for event in answer.stream_events() if event.type == "raw_response_event"]
    return [event.delta for event in events if event.type == "response.output_text.delta"]


async def tools():
    settings = ModelSettings(tool_choice="required")
    answer = await run(tools=[get_weather], model_settings=settings, tool_use_behavior="stop_on_first_tool")
    call = next(item.raw_item for item in answer.new_items if item.type == "tool_call_item")
    return call.name, call.arguments


async def structured():
    return (await run(output_type=Report)).final_output


report(globals())
