"""Instructor."""

import os

from checks import QUESTION, TOOL, report
from pydantic import BaseModel, create_model

# [connect]
import instructor
from openai import OpenAI

client = instructor.from_openai(
    OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"]),
    mode=instructor.Mode.TOOLS,
)
# [end]

PACKAGE = "instructor"
MESSAGES = [{"role": "user", "content": QUESTION}]


class Report(BaseModel):
    city: str
    celsius: int


def whole():
    return client.create(model="auto", messages=MESSAGES, response_model=str)


def stream():
    # Its streams are of objects that grow; the first one that differs from the next shows that it was streamed.
    grown = list(client.create_partial(model="auto", messages=MESSAGES, response_model=Report))
    return [str(report) for report in grown]


def tools():
    Call = create_model(TOOL, city=str)
    call = client.create(model="auto", messages=MESSAGES, response_model=Call)
    return type(call).__name__, call.model_dump()


def structured():
    return client.create(model="auto", messages=MESSAGES, response_model=Report)


report(globals())
