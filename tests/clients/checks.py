"""What every framework is asked, and what counts as an answer.

A script `with_*.py` defines `PACKAGE`, and `whole`, `stream`, `tools` and `structured`, which may be coroutines; its last
line calls `report`, which prints one line of JSON for `clients.py`.
"""

import asyncio
import importlib.metadata
import inspect
import json
import sys
import traceback
import warnings

QUESTION = "What is the weather in Zürich?"
TOOL = "get_weather"
METHODS = ("whole", "stream", "tools", "structured")


def is_text(text) -> bool:
    return isinstance(text, str) and text.strip() != ""


def check_whole(text) -> None:
    """`text`: the answer."""
    assert is_text(text), f"no text: {text!r}"


def check_stream(pieces) -> None:
    """`pieces`: the texts in the order in which they came. One alone would be a whole answer."""
    texts = [piece for piece in pieces if piece]
    assert len(texts) > 1, f"not streamed: {texts!r}"
    assert is_text("".join(texts)), f"no text: {texts!r}"


def check_tools(call) -> None:
    """`call`: name and arguments, as the framework read them."""
    name, arguments = call
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert name == TOOL, f"another tool: {name!r}"
    assert isinstance(arguments.get("city"), str), f"no city: {arguments!r}"


def check_structured(report) -> None:
    """`report`: an object with the city's name and its degrees, as the framework's own validation made it."""
    assert isinstance(report.city, str), f"no city: {report!r}"
    assert isinstance(report.celsius, int), f"no degrees: {report!r}"


CHECKS = dict(zip(METHODS, (check_whole, check_stream, check_tools, check_structured)))


def attempt(method, script, loop) -> str:
    """How `method` went: "yes", or the first line of its error."""
    try:
        answer = script[method]()
        CHECKS[method](loop.run(answer) if inspect.iscoroutine(answer) else answer)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return "yes"


def report(script) -> None:
    """Runs the methods of a script's `globals()` and prints how each went."""
    warnings.simplefilter("ignore")
    # One loop for all, because an asynchronous client keeps its connections to the loop it was first used in.
    with asyncio.Runner() as loop:
        answers = {method: attempt(method, script, loop) for method in METHODS}
    # The frameworks may print to stdout themselves; the last line is the result.
    print(json.dumps({"version": importlib.metadata.version(script["PACKAGE"]), **answers}), flush=True)
    sys.exit(any(answer != "yes" for answer in answers.values()))
