"""A scripted provider of OpenAI's Responses and Anthropic's Messages, in front of which real programs do a task.

It thinks, has the program use two tools, one after the other, and answers with what they said (`TASKS`; which task it is
follows from the tools that are offered). The last part of the requested model's name, its scene, says how it goes wrong:
`good`, or `PLACE-CUT`. A stream is cut within the arguments of the first tool (`tool`) or within the last text (`text`,
`whole`); a whole last answer is cut only in the place `whole`. The connection ends by RST (`rst`), by FIN (`fin`), or as
if everything had been sent (`end`).

Start reading in `ScriptedProvider`.
"""

import json
import secrets
from dataclasses import dataclass

from provider import Exchange, Journal, Provider, Reset, Visit

THOUGHT = "Two tools know it."
SEALED = "gAAAA-sealed-" + "s" * 64
#: What the last answer begins with; what the tools said follows.
BEGINNING = "The tools said:"
PIECE = 7
SCENES = ["good", *(f"{place}-{cut}" for place in ("tool", "text") for cut in ("rst", "fin", "end")), "whole-rst", "whole-fin"]


@dataclass(frozen=True)
class Tool:
    """A tool that the provider calls. `arguments` is a text for one of Responses' free-form tools."""

    name: str
    arguments: dict | str

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments, ensure_ascii=False)


#: What the second tool of Codex and Claude Code writes into `answer.txt`.
WRITTEN = "written by the second tool"
PATCH = f"*** Begin Patch\n*** Add File: answer.txt\n+{WRITTEN}\n*** End Patch\n"
FRAMEWORK_TASK = [Tool("get_weather", {"city": "Zürich"}), Tool("get_population", {"city": "Zürich"})]
CODEX_TASK = [Tool("exec_command", {"cmd": "cat question.txt"}), Tool("apply_patch", PATCH)]
CLAUDE_CODE_TASK = [
    Tool("Bash", {"command": "cat question.txt", "description": "Read it"}),
    Tool("Write", {"file_path": "answer.txt", "content": WRITTEN}),
]
TASKS = [FRAMEWORK_TASK, CODEX_TASK, CLAUDE_CODE_TASK]


@dataclass(frozen=True)
class Turn:
    """What is said next: a call of `tool`, or `text` at the end."""

    tool: Tool | None
    text: str


def next_turn(offered: set[str], results: list[str]) -> Turn:
    """The turn that follows after `results` of tools."""
    task = next((task for task in TASKS if {tool.name for tool in task} <= offered), [])
    if len(results) < len(task):
        return Turn(task[len(results)], "")
    return Turn(None, f"{BEGINNING} {' and '.join(results)}.")


class Cut(Exception):
    """The stream ends here."""


class ScriptedProvider(Provider):
    """Listens on a port of the system's choice until `close`; keeps every request in `journal`, by model."""

    def __init__(self):
        super().__init__("scripted", Journal())

    def _answer(self, conn, visit: Visit) -> None:
        x = Exchange(conn, visit, self.journal)
        self.journal.add(x.ask["model"], visit)
        if visit.path.split("?")[0].endswith("/count_tokens"):
            return x.whole({"input_tokens": len(visit.body) // 4})
        place, _, how = x.ask["model"].rpartition("/")[2].partition("-")
        speech = Messages(x) if "/messages" in visit.path else Responses(x)
        try:
            if x.streams:
                speech.stream(place)
            else:
                self._whole(x, speech.whole(), place)
        except Cut:
            if how == "end" and x.streams:
                return x.close_stream()
            raise Reset if how == "rst" else ConnectionError

    @staticmethod
    def _whole(x: Exchange, body: dict, place: str) -> None:
        if place != "whole" or not is_last(body):
            return x.whole(body)
        raw = json.dumps(body).encode()
        x.head(200, {"content-type": "application/json", "content-length": str(len(raw))})
        x.conn.sendall(raw[: len(raw) // 2])
        raise Cut


class Stream:
    """Events of one answer, cut where the scene's `place` says."""

    def __init__(self, x: Exchange, place: str):
        self.x, self.place, self.sent, self.is_last = x, place, 0, False
        x.open_stream()

    def send(self, event: dict) -> None:
        self.x.raw(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n")

    def pieces(self, text: str, is_tool: bool):
        """`text` in pieces; the third is not sent where it is cut."""
        cut = self.place == "tool" if is_tool else self.place in ("text", "whole")
        for at in range(0, len(text), PIECE):
            if cut and at == 2 * PIECE:
                raise Cut
            yield text[at : at + PIECE]


def is_last(body: dict) -> bool:
    """Whether a whole answer calls no tool."""
    return not any(part["type"] in ("tool_use", "function_call", "custom_tool_call") for part in body.get("content") or body["output"])


def text_of(content) -> str:
    """The text of a tool's result, in any of the forms that programs send it in."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


class Messages:
    """Answers in Anthropic's Messages."""

    USAGE = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 9}
    #: What a block is before its parts came, by its type.
    EMPTY = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}

    def __init__(self, x: Exchange):
        self.x, ask = x, x.ask
        last = [part for message in ask["messages"] if message["role"] == "user" for part in parts(message["content"])]
        results = [text_of(part["content"]) for part in last if part["type"] == "tool_result"]
        turn = next_turn({tool["name"] for tool in ask.get("tools", [])}, results)
        self.reason = "tool_use" if turn.tool else "end_turn"
        self.blocks = [{"type": "thinking", "thinking": THOUGHT, "signature": SEALED}] if thinks(ask) else []
        if turn.tool:
            self.blocks.append({"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": turn.tool.name, "input": turn.tool.arguments})
        else:
            self.blocks.append({"type": "text", "text": turn.text})

    def whole(self) -> dict:
        message = {"id": f"msg_{secrets.token_hex(8)}", "type": "message", "role": "assistant", "model": self.x.ask["model"]}
        return {**message, "content": self.blocks, "stop_reason": self.reason, "stop_sequence": None, "usage": self.USAGE}

    def stream(self, place: str) -> None:
        stream = Stream(self.x, place)
        usage = {**self.USAGE, "output_tokens": 1}
        stream.send({"type": "message_start", "message": {**self.whole(), "content": [], "stop_reason": None, "usage": usage}})
        stream.send({"type": "ping"})
        for index, block in enumerate(self.blocks):
            stream.send({"type": "content_block_start", "index": index, "content_block": {**block, **self.EMPTY[block["type"]]}})
            for delta in self._deltas(stream, block):
                stream.send({"type": "content_block_delta", "index": index, "delta": delta})
            stream.send({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": self.reason, "stop_sequence": None}
        stream.send({"type": "message_delta", "delta": delta, "usage": {"output_tokens": self.USAGE["output_tokens"]}})
        stream.send({"type": "message_stop"})
        self.x.close_stream()

    @staticmethod
    def _deltas(stream: Stream, block: dict):
        if block["type"] == "thinking":
            yield {"type": "thinking_delta", "thinking": block["thinking"]}
            yield {"type": "signature_delta", "signature": block["signature"]}
        elif block["type"] == "text":
            for piece in stream.pieces(block["text"], is_tool=False):
                yield {"type": "text_delta", "text": piece}
        else:
            for piece in stream.pieces(json.dumps(block["input"], ensure_ascii=False), is_tool=True):
                yield {"type": "input_json_delta", "partial_json": piece}


def parts(content) -> list[dict]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def thinks(ask: dict) -> bool:
    return ask.get("thinking", {}).get("type") in ("enabled", "adaptive")


class Responses:
    """Answers in OpenAI's Responses."""

    USAGE = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 29,
    }
    #: What an item is before its parts came, by its type.
    EMPTY = {
        "reasoning": {"summary": []},
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "custom_tool_call": {"input": ""},
    }

    def __init__(self, x: Exchange):
        self.x, ask = x, x.ask
        items = parts(ask["input"]) if isinstance(ask["input"], str) else ask["input"]
        results = [text_of(item["output"]) for item in items if item.get("type", "").endswith("call_output")]
        kinds = {tool.get("name"): tool["type"] for tool in ask.get("tools", [])}
        turn = next_turn(set(kinds), results)
        self.id, self.number = f"resp_{secrets.token_hex(8)}", 0
        reasoning = {"type": "reasoning", "id": f"rs_{secrets.token_hex(8)}", "summary": [{"type": "summary_text", "text": THOUGHT}]}
        if "reasoning.encrypted_content" in (ask.get("include") or []):
            reasoning["encrypted_content"] = SEALED + self.id
        self.items = [reasoning, self._call(turn.tool, kinds[turn.tool.name]) if turn.tool else self._message(turn.text)]

    @staticmethod
    def _call(tool: Tool, kind: str) -> dict:
        call = {"call_id": f"call_{secrets.token_hex(8)}", "name": tool.name, "status": "completed"}
        if kind == "custom":
            return {"type": "custom_tool_call", "id": f"ctc_{secrets.token_hex(8)}", **call, "input": tool.text}
        return {"type": "function_call", "id": f"fc_{secrets.token_hex(8)}", **call, "arguments": tool.text}

    @staticmethod
    def _message(text: str) -> dict:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "message", "id": f"msg_{secrets.token_hex(8)}", "role": "assistant", "status": "completed", "content": [part]}

    def whole(self, status: str = "completed") -> dict:
        done = status == "completed"
        return {
            "id": self.id, "object": "response", "created_at": 1, "status": status, "error": None,
            "incomplete_details": None, "instructions": self.x.ask.get("instructions"), "metadata": {},
            "model": self.x.ask["model"], "output": self.items if done else [], "parallel_tool_calls": True,
            "temperature": 1.0, "tool_choice": "auto", "tools": self.x.ask.get("tools", []), "top_p": 1.0,
            "usage": self.USAGE if done else None,
        }  # fmt: skip

    def stream(self, place: str) -> None:
        self.to = Stream(self.x, place)
        for kind in ("created", "in_progress"):
            self._send(kind, response=self.whole("in_progress"))
        for index, item in enumerate(self.items):
            at = {"item_id": item["id"], "output_index": index}
            self._send("output_item.added", output_index=index, item={**item, **self.EMPTY[item["type"]]})
            {"reasoning": self._reasoning, "message": self._text}.get(item["type"], self._tool)(item, at)
            self._send("output_item.done", output_index=index, item=item)
        self._send("completed", response=self.whole())
        self.x.close_stream()

    def _send(self, kind: str, **members) -> None:
        self.to.send({"type": f"response.{kind}", "sequence_number": self.number, **members})
        self.number += 1

    def _reasoning(self, item: dict, at: dict) -> None:
        at, part = {**at, "summary_index": 0}, item["summary"][0]
        self._send("reasoning_summary_part.added", **at, part={**part, "text": ""})
        self._send("reasoning_summary_text.delta", **at, delta=part["text"])
        self._send("reasoning_summary_text.done", **at, text=part["text"])
        self._send("reasoning_summary_part.done", **at, part=part)

    def _text(self, item: dict, at: dict) -> None:
        at, part = {**at, "content_index": 0}, item["content"][0]
        self._send("content_part.added", **at, part={**part, "text": ""})
        for piece in self.to.pieces(part["text"], is_tool=False):
            self._send("output_text.delta", **at, delta=piece, logprobs=[])
        self._send("output_text.done", **at, text=part["text"], logprobs=[])
        self._send("content_part.done", **at, part=part)

    def _tool(self, item: dict, at: dict) -> None:
        kind, name = ("custom_tool_call_input", "input") if "input" in item else ("function_call_arguments", "arguments")
        for piece in self.to.pieces(item[name], is_tool=True):
            self._send(f"{kind}.delta", **at, delta=piece)
        self._send(f"{kind}.done", **at, name=item["name"], **{name: item[name]})
