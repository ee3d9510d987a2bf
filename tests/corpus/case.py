"""One case of the corpus: what a host sends, and what each reader gets of it. README.md describes the file."""

import base64
import json
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from codings import encode
from toml_text import quoted, toml

CASES = Path(__file__).parent / "cases"
MODES = ("stream", "whole")
READERS = ("python", "node", "tierway")
RULES = ("labels", "frames", "ends", "empty", "counts", "client", "hosts")
# In bytes.
LARGE = 8 << 10
NEWLINES = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}
# In a request's body and headers.
MODEL_MARK, STREAM_MARK, KEY_MARK = "MODEL", "STREAM", "KEY"


@dataclass
class Case:
    """One file of `cases/`, as written."""

    name: str
    about: str
    rule: str
    source: str = ""
    request: dict = field(default_factory=dict)
    gateway: dict = field(default_factory=dict)
    reply: dict = field(default_factory=dict)
    answer: dict = field(default_factory=dict)
    receipt: dict = field(default_factory=dict)
    stream: dict = field(default_factory=dict)
    whole: dict = field(default_factory=dict)

    @property
    def model(self) -> str:
        return f"corpus/{self.name}"

    @property
    def endpoint(self) -> str:
        return self.request.get("endpoint", "chat")

    @property
    def modes(self) -> list[str]:
        return self.request.get("modes", list(MODES))

    @property
    def held(self) -> bool:
        return self.reply.get("end") == "hold"

    def known_failing(self, mode: str) -> str:
        """Why the gateway does not do as written as yet; empty where it does."""
        return self.verdicts(mode).get("known_failing", "")

    def verdicts(self, mode: str) -> dict:
        return getattr(self, mode)

    def asks_usage(self, mode: str) -> bool:
        """Whether the client is to be told the usage."""
        return mode == "whole" or bool(self.request.get("usage"))

    def n(self, mode: str) -> int:
        """How many choices are asked for."""
        return int(self.options(mode).get("n") or 1)

    # --- what is asked ------------------------------------------------------------------------

    def options(self, mode: str) -> dict:
        """The request as the SDKs send it."""
        if "body" in self.request:
            options = json.loads(self.body(mode, ""))
            options.pop("user", None)
            return options
        options = {"model": self.model}
        if self.endpoint == "chat":
            options["messages"] = [{"role": "user", "content": "Say hi."}]
        elif self.endpoint == "completions":
            options["prompt"] = "Say hi."
        else:
            options |= {"input": "Say hi.", "encoding_format": "float"}
        if mode == "stream":
            options["stream"] = True
            if self.request.get("usage"):
                options["stream_options"] = {"include_usage": True}
        if "n" in self.request:
            options["n"] = self.request["n"]
        return options

    def body(self, mode: str, user: str) -> bytes:
        """The request as the plain client sends it; `user` tells the provider how to cut its answer."""
        if "body" not in self.request:
            return json.dumps({**self.options(mode), "user": user}).encode()
        text = self.request["body"].replace(MODEL_MARK, json.dumps(self.model))
        text = text.replace(STREAM_MARK, "true" if mode == "stream" else "false")
        return text.replace("{", '{"user":' + json.dumps(user) + ",", 1).encode()

    def headers(self, key: str) -> list[str]:
        return [line.replace(KEY_MARK, key) for line in self.request.get("headers", ["authorization: Bearer KEY"])]

    # --- what the provider sends ----------------------------------------------------------------

    def plain_bytes(self) -> bytes:
        """The body before any content coding."""
        if "body_base64" in self.reply:
            return base64.b64decode(self.reply["body_base64"])
        text = self.reply.get("body", "").replace("\n", NEWLINES[self.reply.get("newline", "lf")])
        for mark in self.reply.get("replace", []):
            text = text.replace(mark["mark"], mark["text"] * mark.get("times", 1))
        return text.encode("utf-8", "surrogatepass")

    @cached_property
    def wire(self) -> bytes:
        """The body as it is sent."""
        return encode(self.reply.get("encoding"), self.plain_bytes())[: self.reply.get("cut")]

    @property
    def large(self) -> bool:
        """Too large to be cut at every byte, or to be read beside others."""
        return len(self.wire) > LARGE

    # --- the file -------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path) -> "Case":
        return cls.parse(path.stem, path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, name: str, text: str) -> "Case":
        case = cls(name=name, **tomllib.loads(text))
        case.check()
        return case

    def check(self) -> None:
        """Raises ValueError for what no case may say."""
        known = {
            "request": {"endpoint", "modes", "usage", "n", "body", "headers", "half_close"},
            "gateway": {"provider", "model"},
            "reply": {"status", "headers", "status_line", "interim", "framing", "encoding", "end", "newline", "replace", "cut", "body", "body_base64"},
            "answer": {"choices", "usage"},
            "receipt": {"input", "cached", "output", "reasoning", "estimated"},
            "stream": {*READERS, "known_failing"},
            "whole": {*READERS, "known_failing"},
        }
        for table, names in known.items():
            odd = set(getattr(self, table)) - names
            if odd:
                raise ValueError(f"{self.name}: [{table}] has no {sorted(odd)}")
        if self.rule not in RULES:
            raise ValueError(f"{self.name}: no rule {self.rule!r}")

    def dump(self) -> str:
        out = [f"about = {quoted(self.about)}", f"rule = {quoted(self.rule)}"]
        if self.source:
            out.append(f"source = {quoted(self.source)}")
        for table in ("request", "gateway", "reply", "answer", "receipt", *MODES):
            members = getattr(self, table)
            if members:
                out += ["", f"[{table}]"]
                out += [f"{name} = {toml(value, name)}" for name, value in members.items()]
        return "\n".join(out) + "\n"

    def save(self) -> None:
        (CASES / f"{self.name}.toml").write_text(self.dump(), encoding="utf-8")


def load_all() -> list[Case]:
    return [Case.load(path) for path in sorted(CASES.glob("*.toml"))]
