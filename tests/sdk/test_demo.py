"""The demo answers what applications ask for, read by the official client: text, tools, documents of a schema, vectors.

Its simulated providers are the ones that programs are tried with before there is a real one.
"""

import base64
import os
import struct
import subprocess
from datetime import date
from enum import Enum
from typing import Annotated, Literal, Optional, Union

import openai
import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, Field, TypeAdapter

from gateway import PROJECT, READY, STOP_WITHIN_S

HELLO = [{"role": "user", "content": "What is the weather in Oslo?"}]
EMBEDDER = "Qwen/Qwen3-Embedding-8B"
KEY = "export OPENAI_API_KEY="
BINARY = os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A client of a running demo."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "TIERWAY__SERVER__LISTEN": "127.0.0.1:0"}
    said = folder / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen([BINARY, "serve"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr)
        try:
            address = process.stdout.readline().decode().strip().removeprefix(READY)
            key = next(line for line in said.read_text().splitlines() if line.strip().startswith(KEY))
            yield OpenAI(base_url=f"{address}/v1", api_key=key.strip().removeprefix(KEY), max_retries=0)
        finally:
            process.terminate()
            assert process.wait(STOP_WITHIN_S) == 0


def said_by(chunks, read) -> str:
    deltas = (chunk.choices[0].delta for chunk in chunks if chunk.choices)
    return "".join(read(delta) or "" for delta in deltas)


# --- tools ----------------------------------------------------------------------------------------

WEATHER = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": CLOCK}]


class WeatherArguments(BaseModel, extra="forbid"):
    city: str
    unit: Literal["C", "F"]


class Nothing(BaseModel, extra="forbid"):
    pass


@pytest.mark.parametrize(
    "choice, name",
    [
        (openai.NOT_GIVEN, "weather"),
        ("auto", "weather"),
        ("required", "weather"),
        ({"type": "function", "function": {"name": "clock"}}, "clock"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}},
            "clock",
        ),
    ],
)
def test_the_chosen_tool_is_called_whole_and_streamed(demo, choice, name):
    asked = {"model": "auto", "messages": HELLO, "tools": TOOLS, "tool_choice": choice}
    whole = demo.chat.completions.create(**asked).choices[0]
    (call,) = whole.message.tool_calls
    assert (whole.finish_reason, whole.message.content, call.type) == ("tool_calls", None, "function")
    assert call.function.name == name and call.id
    fitting = WeatherArguments if name == "weather" else Nothing
    fitting.model_validate_json(call.function.arguments)
    with demo.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    (same,) = streamed.message.tool_calls
    assert (streamed.finish_reason, same.type, same.function.name) == ("tool_calls", "function", name) and same.id
    fitting.model_validate_json(same.function.arguments)


def test_no_tool_is_called_that_must_not_be(demo):
    whole = demo.chat.completions.create(model="auto", messages=HELLO, tools=TOOLS, tool_choice="none").choices[0]
    assert whole.finish_reason == "stop" and whole.message.content and not whole.message.tool_calls


def test_a_program_that_runs_tools_comes_to_an_end(demo):
    messages = list(HELLO)
    for _ in range(2):
        message = demo.chat.completions.create(model="auto", messages=messages, tools=TOOLS).choices[0].message
        if not message.tool_calls:
            break
        results = [{"role": "tool", "tool_call_id": call.id, "content": "21"} for call in message.tool_calls]
        messages += [message, *results]
    assert message.content and not message.tool_calls


def test_functions_are_called_as_before_there_were_tools(demo):
    asked = {"model": "auto", "messages": HELLO, "functions": [WEATHER], "function_call": {"name": "weather"}}
    whole = demo.chat.completions.create(**asked).choices[0]
    assert (whole.finish_reason, whole.message.function_call.name) == ("function_call", "weather")
    WeatherArguments.model_validate_json(whole.message.function_call.arguments)
    chunks = demo.chat.completions.create(**asked, stream=True)
    streamed = said_by(chunks, lambda delta: delta.function_call and delta.function_call.arguments)
    WeatherArguments.model_validate_json(streamed)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "unknown"}}, "perhaps"])
def test_a_choice_that_cannot_be_is_refused(demo, choice):
    tools = openai.NOT_GIVEN if choice == "required" else TOOLS
    with pytest.raises(BadRequestError) as refused:
        demo.chat.completions.create(model="auto", messages=HELLO, tools=tools, tool_choice=choice)
    assert refused.value.param == "tool_choice"


# --- documents ------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Point(BaseModel):
    x: int = Field(ge=0, le=10)
    y: float = Field(gt=0, lt=1)


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    corner: Point


class Tree(BaseModel):
    name: str
    parent: Optional["Tree"]
    children: list["Tree"]


class Everything(BaseModel):
    name: str = Field(min_length=3, max_length=12)
    code: str = Field(pattern=r"^[A-Z]{3}-\d{4}$")
    born: date
    colour: Colour
    colours: list[Colour] = Field(min_length=2)
    point: Point
    maybe: Optional[int]
    shape: Union[Circle, Square]
    tagged: Annotated[Union[Circle, Square], Field(discriminator="kind")]
    pair: tuple[int, str]
    prices: dict[str, float]


@pytest.mark.parametrize("form", [Point, Square, Tree, Everything])
def test_a_document_fits_its_schema_whole_and_streamed(demo, form):
    described = {"type": "json_schema", "json_schema": {"name": "form", "schema": form.model_json_schema()}}
    asked = {"model": "auto", "messages": HELLO, "response_format": described}
    whole = demo.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "stop"
    form.model_validate_json(whole.message.content)
    form.model_validate_json(said_by(demo.chat.completions.create(**asked, stream=True), lambda delta: delta.content))


@pytest.mark.parametrize("form", [Square, Tree])
def test_the_clients_own_parsing_gets_its_object(demo, form):
    whole = demo.chat.completions.parse(model="auto", messages=HELLO, response_format=form)
    assert isinstance(whole.choices[0].message.parsed, form)
    with demo.chat.completions.stream(model="auto", messages=HELLO, response_format=form) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, form)
    tool = openai.pydantic_function_tool(form)
    called = demo.chat.completions.parse(model="auto", messages=HELLO, tools=[tool])
    assert isinstance(called.choices[0].message.tool_calls[0].function.parsed_arguments, form)


def test_json_without_a_schema_is_an_object_or_what_the_prompt_describes(demo):
    def asked(messages):
        answer = demo.chat.completions.create(model="auto", messages=messages, response_format={"type": "json_object"})
        return answer.choices[0].message.content

    TypeAdapter(dict).validate_json(asked(HELLO))
    prompt = f"Answer in JSON by this schema:\n{Point.model_json_schema()}".replace("'", '"')
    Point.model_validate_json(asked([{"role": "system", "content": prompt}, *HELLO]))


# --- vectors and completions ----------------------------------------------------------------------


def test_vectors_are_the_same_in_either_encoding(demo):
    asked = {"model": EMBEDDER, "input": ["Oslo", "Bergen"], "dimensions": 8}
    numbers = demo.embeddings.create(**asked, encoding_format="float")
    encoded = demo.embeddings.create(**asked, encoding_format="base64")
    assert [each.index for each in numbers.data] == [0, 1] and numbers.usage.prompt_tokens > 0
    assert numbers.data[0].embedding != numbers.data[1].embedding
    for number, text in zip(numbers.data, encoded.data):
        decoded = struct.unpack("<8f", base64.b64decode(text.embedding))
        assert decoded == pytest.approx(number.embedding)
    # The client asks for base64 and decodes it by itself.
    (alone,) = demo.embeddings.create(model=EMBEDDER, input="Oslo", dimensions=8).data
    assert alone.embedding == pytest.approx(numbers.data[0].embedding)


def test_a_completion_repeats_its_prompt_where_it_is_asked_to(demo):
    asked = {"model": "auto", "prompt": "Once", "max_tokens": 8}
    plain = demo.completions.create(**asked).choices[0]
    echoed = demo.completions.create(**asked, echo=True).choices[0]
    assert (plain.finish_reason, echoed.finish_reason) == ("length", "length")
    assert plain.text and not plain.text.startswith("Once") and echoed.text.startswith("Once")
    chunks = demo.completions.create(**asked, echo=True, stream=True)
    streamed = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert streamed.startswith("Once") and len(streamed) > len("Once")
