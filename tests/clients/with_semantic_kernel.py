"""Semantic Kernel (Python)."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

service = OpenAIChatCompletion(
    ai_model_id="auto",
    async_client=AsyncOpenAI(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
    ),
)
# [end]
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function

PACKAGE = "semantic-kernel"


class Report(BaseModel):
    city: str
    celsius: int


@kernel_function(name="get_weather", description="The weather in a city.")
def get_weather(city: str) -> str:
    return f"Sunny in {city}."


def history():
    history = ChatHistory()
    history.add_user_message(QUESTION)
    return history


async def ask(**settings):
    return await service.get_chat_message_content(history(), OpenAIChatPromptExecutionSettings(**settings))


async def whole():
    return (await ask()).content


async def stream():
    chunks = service.get_streaming_chat_message_content(history(), OpenAIChatPromptExecutionSettings())
    return [chunk.content async for chunk in chunks]


async def tools():
    kernel = Kernel()
    kernel.add_function("weather", get_weather)
    behavior = FunctionChoiceBehavior.Required(auto_invoke=False)
    settings = OpenAIChatPromptExecutionSettings(function_choice_behavior=behavior)
    answer = await service.get_chat_message_content(history(), settings, kernel=kernel)
    # It puts the plugin's name before the function's.
    call = answer.items[0]
    return call.function_name, call.arguments


async def structured():
    return Report.model_validate_json((await ask(response_format=Report)).content)


report(globals())
