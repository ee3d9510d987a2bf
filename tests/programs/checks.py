"""What every program is asked, and what its tools say.

A script `with_*.py` defines `PACKAGE`, and `whole` and `stream`, which do the task with a model at a URL and return the
answer's text; its last line calls `report`. Its argument is the list of cases, and the last line that it prints is how
each went: its answer, or what it raised.
"""

import asyncio
import importlib.metadata
import inspect
import json
import os
import sys
import traceback

TASK = "How is the weather in Zürich, and how many live there?"
KEY = os.environ.get("PROGRAM_KEY", "")


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


def get_population(city: str) -> str:
    """How many people live in a city."""
    return f"443037 people in {city}"


TOOLS = {tool.__name__: tool for tool in (get_weather, get_population)}
ANSWER = "The tools said: 12 degrees in Zürich and 443037 people in Zürich."


def outcome(case: dict, script: dict, loop: asyncio.Runner) -> dict:
    """How one case went."""
    try:
        answer = script[case["mode"]](case["url"], case["model"])
        return {"answer": loop.run(answer) if inspect.iscoroutine(answer) else answer}
    except Exception as error:
        traceback.print_exc()
        return {"raised": f"{type(error).__name__}: {error}"}


def report(script: dict) -> None:
    """Runs the cases with the methods of a script's `globals()`."""
    # One loop for all, because an asynchronous client keeps its connections to the loop it was first used in.
    with asyncio.Runner() as loop:
        outcomes = [outcome(case, script, loop) for case in json.loads(sys.argv[1])]
    print(json.dumps({"version": importlib.metadata.version(script["PACKAGE"]), "outcomes": outcomes}), flush=True)
