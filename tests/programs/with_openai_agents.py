"""OpenAI Agents SDK, its default: Responses."""

from checks import KEY, TASK, get_population, get_weather, report

# [connect]
from agents import Agent, OpenAIProvider, RunConfig, Runner
from openai import AsyncOpenAI


def run_config(url):
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    # Traces would be sent to OpenAI.
    return RunConfig(model_provider=OpenAIProvider(openai_client=client), tracing_disabled=True)
# [end]
from agents import function_tool

PACKAGE = "openai-agents"


def agent(model):
    return Agent(name="reporter", model=model, tools=[function_tool(get_weather), function_tool(get_population)])


async def whole(url, model):
    return (await Runner.run(agent(model), TASK, run_config=run_config(url))).final_output


async def stream(url, model):
    answer = Runner.run_streamed(agent(model), TASK, run_config=run_config(url))
    async for _ in answer.stream_events():
        pass
    return answer.final_output


report(globals())
