"""Pydantic AI, its default for OpenAI's models: Responses."""

from checks import KEY, TASK, get_population, get_weather, report

# [connect]
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


def connect(url, model):
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    return OpenAIResponsesModel(model, provider=OpenAIProvider(openai_client=client))
# [end]

PACKAGE = "pydantic-ai-slim"


def agent(url, model):
    return Agent(connect(url, model), tools=[get_weather, get_population])


async def whole(url, model):
    return (await agent(url, model).run(TASK)).output


async def stream(url, model):
    async with agent(url, model).run_stream(TASK) as answer:
        return "".join([piece async for piece in answer.stream_text(delta=True, debounce_by=None)])


report(globals())
