"""What a reader got of an answer, in a form in which readers can be compared."""

import hashlib
import json
import math
from dataclasses import dataclass, field

# What hosts write as the reason of an answer that they could not finish.
FAILED = {"error", "network_error"}
# Longer texts stand in a case by their beginning, length and hash.
LONG = 200
TEXTS = {"content": "text", "text": "text", "reasoning_content": "reasoning", "reasoning": "reasoning", "refusal": "refusal"}


@dataclass
class Got:
    """The outcome of one request: `answer` is a whole one, `short` lacks its end and does not say so."""

    ends: str
    choices: list[dict] = field(default_factory=list)
    usage: dict = field(default_factory=dict)
    error: str = ""
    detail: str = ""
    # Some of it means what a reader takes it for: a choice that says nothing, or says it in the member of the other
    # mode, or goes on after its finish reason; calls without an index, or of one index and two ids; what hosts send in
    # place of an answer, before one.
    vague: bool = False

    @classmethod
    def of(cls, parts: list, mode: str, usage_asked: bool, n: int = 1) -> "Got":
        """The outcome of these JSON values, after which nothing was found wrong, for who asked for `n` choices."""
        folded = Fold("delta" if mode == "stream" else "message")
        for part in parts:
            folded.add(part)
        choices = folded.result()
        # A choice that was not asked for need not end, unless it stands for the one that was.
        asked = [choice for choice in choices if choice.get("index", 0) < n] or choices
        whole = bool(asked) and all(choice.get("vector") or choice.get("finish", "") not in {"", *FAILED} for choice in asked)
        vague = folded.vague or not all(folded.choices.values())
        return cls("answer" if whole else "short", choices, folded.usage if usage_asked else {}, vague=vague)

    def verdict(self, answer: dict) -> str:
        """As it is written in a case whose `[answer]` this is."""
        match self.ends:
            case "answer":
                missed = "usage" in answer and self.usage and self.usage != answer["usage"]
                return "answer" if self.choices == answer.get("choices") and not missed else f"other: {self.describe()}"
            case "error":
                return f"error: {self.error}"
        # Hosts that never say why an answer ends have that in their cases.
        return "answer" if self.ends == "short" and self.choices and self.choices == answer.get("choices") else self.ends

    def describe(self) -> str:
        return json.dumps({"choices": self.choices, **({"usage": self.usage} if self.usage else {})}, ensure_ascii=False)


class Fold:
    """Puts the parts of an answer together, as an application does: it reads one member of each choice."""

    def __init__(self, member: str):
        self.member = member
        self.other = {"delta": "message", "message": "delta"}[member]
        self.choices: dict[int, dict] = {}
        self.usage: dict = {}
        self.vague = False

    def add(self, part) -> None:
        if not isinstance(part, dict):
            return
        self._add_usage(part.get("usage"))
        self.vague |= "choices" not in part and ("detail" in part or {"code", "message"} <= set(part))
        for position, choice in enumerate(listed(part.get("choices"))):
            index = choice.get("index")
            known = self.choices.setdefault(index if isinstance(index, int) else position, {})
            self.vague |= bool(choice.get(self.other)) or isinstance(index, int) and index < 0
            before = json.dumps(known)
            for source in (choice.get(self.member), {"text": choice.get("text")}):
                if isinstance(source, dict):
                    self._add_members(known, source)
            self.vague |= "finish" in known and before != json.dumps(known)
            # What has failed does not finish after all.
            if (reason := choice.get("finish_reason")) and known.get("finish") not in FAILED:
                known["finish"] = reason if isinstance(reason, str) else json.dumps(reason)
        for position, vector in enumerate(listed(part.get("data"))):
            self.choices[position] = {"vector": vector.get("embedding")}

    def _add_usage(self, usage) -> None:
        if isinstance(usage, dict) and usage:
            names = ("prompt_tokens", "completion_tokens")
            self.usage = {name: usage[name] for name in names if isinstance(usage.get(name), (int, float))}

    def _add_members(self, known: dict, source: dict) -> None:
        for name, value in source.items():
            if name == "role" or not value:
                continue
            if name == "content" and not isinstance(value, str):
                value = str(value) if isinstance(value, (int, float)) else value
            if name == "content" and (isinstance(value, list) or "content" in known.get("also", {})):
                self._add_parts(known, value)
            elif name == "tool_calls":
                self._add_calls(known.setdefault("tools", []), listed(value))
            elif name in TEXTS and isinstance(value, str):
                known[TEXTS[name]] = known.get(TEXTS[name], "") + value
            else:
                also = known.setdefault("also", {})
                also[name] = joined(also.get(name), value)

    def _add_parts(self, known: dict, value) -> None:
        """Content in parts, or text that follows or precedes them."""
        also = known.setdefault("also", {})
        parts = also.setdefault("content", [text_part(known.pop("text"))] if "text" in known else [])
        if isinstance(value, list):
            parts += value
        elif parts and isinstance(parts[-1], dict) and parts[-1].get("type") == "text":
            parts[-1] = text_part(parts[-1].get("text", "") + value)
        else:
            parts.append(text_part(value))

    def _add_calls(self, calls: list[dict], parts: list[dict]) -> None:
        for part in parts:
            at = part.get("index")
            if not isinstance(at, int):
                # Hosts that send calls without an index send each whole, or go on with the last.
                self.vague = True
                at = len(calls) if part.get("id") or not calls else len(calls) - 1
            while len(calls) <= min(at, 128):
                calls.append({})
            function = part.get("function") if isinstance(part.get("function"), dict) else {}
            for name, value in (("id", part.get("id")), ("name", function.get("name"))):
                if isinstance(value, str) and value:
                    self.vague |= calls[at].setdefault(name, value) != value
            if isinstance(function.get("arguments"), str):
                calls[at]["arguments"] = calls[at].get("arguments", "") + function["arguments"]

    def result(self) -> list[dict]:
        out = []
        # A choice that says nothing has not come.
        for index in sorted(index for index, choice in self.choices.items() if choice):
            choice = self.choices[index]
            if "tools" in choice:
                choice["tools"] = [call for call in choice["tools"] if call]
            choice = tidy(choice)
            out.append({"index": index, **choice} if index else choice)
        return out


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def joined(before, value):
    """What two parts of one member come to."""
    if type(before) is not type(value):
        return value
    if isinstance(value, dict):
        return before | {name: joined(before.get(name), each) for name, each in value.items()}
    return before + value if isinstance(value, (str, list)) else value


def listed(value) -> list[dict]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def tidy(value):
    """In a form that a case can hold, and that can be compared: pairs of surrogates joined, long texts by their hash,
    NaN as a text, nothing where there is `null`."""
    if isinstance(value, str):
        text = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if len(text) <= LONG:
            return text
        return f"{text[:24]}… {len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        order = ("text", "reasoning", "refusal", "tools", "also", "finish")
        names = sorted(value, key=lambda name: order.index(name) if name in order else -1)
        return {name: tidy(value[name]) for name in names if value[name] is not None}
    if isinstance(value, list):
        return [tidy(each) for each in value if each is not None]
    return value


# --- a reader of our own ----------------------------------------------------------------------


class Malformed(Exception):
    """Something that is no answer."""


def events(raw: bytes):
    """The events of a stream by the HTML standard, each as (name, data); the last one also without its blank line."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    name, data = "", []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            data.append(value)
        elif key == "event":
            name = value
    if data:
        yield name, "\n".join(data)


def read_stream(raw: bytes, usage_asked: bool) -> Got:
    """What a lenient and careful reader gets: it skips what is no object, believes no end that is not there, and once
    every choice that came has finished, nothing makes the answer incomplete."""
    parts = []
    for name, data in events(raw):
        if data.strip().startswith("[DONE]"):
            break
        try:
            part = frame(name, data)
        except (Malformed, RecursionError) as error:
            if Got.of(parts, "stream", usage_asked).ends != "answer":
                return Got("error", error=type(error).__name__, detail=str(error))
            continue
        if part is None or _undoes(part) and Got.of(parts, "stream", usage_asked).ends == "answer":
            continue
        parts.append(part)
    return Got.of(parts, "stream", usage_asked)


def _undoes(part: dict) -> bool:
    """Whether a choice in it has failed: too late where all have finished."""
    return any(choice.get("finish_reason") in FAILED for choice in listed(part.get("choices")) if isinstance(choice.get("finish_reason"), str))


def frame(name: str, data: str):
    """One frame's object; `None` for what is no object and says nothing."""
    if name == "error":
        raise Malformed("an error event")
    try:
        value = json.loads(data)
    except ValueError:
        if data.lstrip().startswith("{"):
            raise Malformed("a broken object") from None
        return None
    if not isinstance(value, dict):
        return None
    if value.get("error") or value.get("object") == "error":
        raise Malformed("an error frame")
    return value


def read_whole(raw: bytes) -> Got:
    """What a lenient reader gets of a whole answer."""
    try:
        value = json.loads(raw.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        return Got("error", error=type(error).__name__)
    if not isinstance(value, dict) or value.get("error") or value.get("object") == "error":
        return Got("error", error="Malformed")
    return Got.of([value], "whole", True)
