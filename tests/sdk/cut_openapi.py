"""Cuts OpenAI's API description to what the official suites of `suites.py` ask: `cut_openapi.py DOCUMENT`.

Writes openapi.json: the paths of chat, completions, embeddings, models and responses with what they refer to, without
the prose, and without the events of streams, which the mock does not send.
DOCUMENT is the one that the Python client is generated from: `SOURCE` says where it is, and its licence.
"""

import json
import sys
from pathlib import Path

import yaml

SOURCE = (
    "Cut from api_reference/openapi.transformed.yml of github.com/openai/openai-python, Apache-2.0 (see LICENSE; the "
    "document calls itself MIT). Changed by tests/sdk/cut_openapi.py: most paths, streams and the prose are left out."
)
STREAM = "text/event-stream"
PATHS = ("/chat/completions", "/completions", "/embeddings", "/models", "/responses")


def cut(document: dict) -> dict:
    """The part of `document` that the suites need."""
    out = {name: document[name] for name in ("openapi", "info", "servers", "security")}
    out["info"] = {**out["info"], "x-source": SOURCE}
    out["paths"] = {path: item for path, item in document["paths"].items() if path.startswith(PATHS) and "?" not in path}
    whole = document["components"]
    out["components"] = {"securitySchemes": whole["securitySchemes"]}
    bare(out["paths"])
    waiting = list(references(out["paths"]))
    while waiting:
        kind, name = waiting.pop()
        kept = out["components"].setdefault(kind, {})
        if name not in kept:
            kept[name] = bare(whole[kind][name])
            waiting += references(kept[name])
    return out


def references(value):
    """Kind and name of every component that `value` refers to."""
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            yield tuple(target.removeprefix("#/components/").split("/"))
        value = value.values()
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        for member in value:
            yield from references(member)


def bare(value):
    """Removes prose and extensions from `value`; a property may be called `description`, but is no text."""
    if isinstance(value, dict):
        for name, member in list(value.items()):
            if name == STREAM or str(name).startswith("x-") or (name in ("description", "summary") and isinstance(member, str)):
                del value[name]
    if isinstance(value, (dict, list)):
        for member in value.values() if isinstance(value, dict) else value:
            bare(member)
    return value


def lines(document: dict) -> str:
    """`document` as JSON, each path and component in a line of its own."""

    def text(value) -> str:
        return json.dumps(value, ensure_ascii=False, default=str)

    def members(value: dict, write=text) -> str:
        return "{\n" + ",\n".join(f"{text(name)}: {write(member)}" for name, member in value.items()) + "\n}"

    by_line = {"paths": members, "components": lambda kinds: members(kinds, members)}
    written = [f"{text(name)}: {by_line.get(name, text)(member)}" for name, member in document.items()]
    return "{\n" + ",\n".join(written) + "\n}\n"


if __name__ == "__main__":
    document = yaml.load(Path(sys.argv[1]).read_text(encoding="utf-8"), yaml.CSafeLoader)
    Path(__file__).with_name("openapi.json").write_text(lines(cut(document)), encoding="utf-8")
