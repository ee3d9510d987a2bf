"""AutoGen."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from autogen_ext.models.openai import OpenAIChatCompletionClient

client = OpenAIChatCompletionClient(
    model="auto",
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    model_info={
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "structured_output": True,
        "family": "unknown",
    },
)
# [end]
from autogen_core.models import UserMessage
from autogen_core.tools import FunctionTool

PACKAGE = "autogen-ext"
MESSAGES = [UserMessage(content=QUESTION, source="user")]


class Report(BaseModel):
    city: str
    celsius: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


async def ask(**options):
    return (await client.create(MESSAGES, **options)).content


async def whole():
    return await ask()


async def stream():
    # After the last piece comes the whole.
    return [piece async for piece in client.create_stream(MESSAGES) if isinstance(piece, str)]


async def tools():
    weather = FunctionTool(get_weather, "The weather in a city.")
    call = (await ask(tools=[weather], tool_choice="required"))[0]
    return call.name, call.arguments


async def structured():
    return Report.model_validate_json(await ask(json_output=Report))


report(globals())
