"""LiteLLM as a client."""

import json
import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
import litellm

TIERWAY = {
    "model": "openai/auto",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
}
# litellm.completion(messages=…, **TIERWAY)
# [end]

PACKAGE = "litellm"
MESSAGES = [{"role": "user", "content": QUESTION}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


class Report(BaseModel):
    city: str
    celsius: int


def whole():
    return litellm.completion(messages=MESSAGES, **TIERWAY).choices[0].message.content


def stream():
    chunks = litellm.completion(messages=MESSAGES, stream=True, **TIERWAY)
    return [chunk.choices[0].delta.content for chunk in chunks]


def tools():
    answer = litellm.completion(messages=MESSAGES, tools=[WEATHER], tool_choice="required", **TIERWAY)
    call = answer.choices[0].message.tool_calls[0].function
    return call.name, json.loads(call.arguments)


def structured():
    answer = litellm.completion(messages=MESSAGES, response_format=Report, **TIERWAY)
    return Report.model_validate_json(answer.choices[0].message.content)


report(globals())
