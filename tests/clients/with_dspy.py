"""DSPy."""

import os

from checks import QUESTION, report
from pydantic import BaseModel

# [connect]
import dspy

model = dspy.LM(
    "openai/auto",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    cache=False,
)
# [end]

PACKAGE = "dspy"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


class Report(BaseModel):
    city: str
    celsius: int


class Ask(dspy.Module):
    def forward(self, question):
        return dspy.Prediction(answer=model(question)[0])


def whole():
    return Ask()(question=QUESTION).answer


async def stream():
    chunks = dspy.streamify(Ask())(question=QUESTION)
    # After the last chunk comes what was predicted.
    return [chunk.choices[0].delta.content async for chunk in chunks if not isinstance(chunk, dspy.Prediction)]


def tools():
    answer = model(QUESTION, tools=[WEATHER], tool_choice="required")[0]
    call = answer["tool_calls"][0].function
    return call.name, call.arguments


def structured():
    # Its own JSON adapter asks a model that it does not know by name for any JSON object, without the schema.
    return Report.model_validate_json(model(QUESTION, response_format=Report)[0])


report(globals())
