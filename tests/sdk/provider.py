"""A scripted provider on a raw socket: it implements OpenAI's protocol, or breaks it on purpose.

The requested *model* and the provider's *region* decide what it does (`EVERYWHERE`, `IN_US_ONLY`), so
tests share one gateway and one pair of providers without affecting each other: every model at every
provider is a deployment of its own, with a breaker of its own.

It never uses an HTTP library: a library would not let it cut a stream in the middle of a frame.
Every request is kept in a `Journal`, on which tests may wait.
"""

import base64
import json
import secrets
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from stored_provider import StoredConversations, StoredResponses

WORDS = ["The", " bridge", " stands", " because", " every", " stone", " leans", " – 石 –", " on", " another."]
CONTENT = "".join(WORDS)
TOOL_ARGUMENTS = '{"city": "Zürich", "unit": "celsius"}'
USAGE = {"prompt_tokens": 11, "completion_tokens": 10, "total_tokens": 21}
RESPONSE_USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 21,
}
STORED = StoredResponses()
CONVERSATIONS = StoredConversations()
# Exact as 32-bit floats, so that the base64 form and the list form are equal.
VECTOR = [0.5, -0.25, 1.0, 0.0]

# Pace of an endless stream: well within the gateway's idle limit.
ENDLESS_PACE_S = 0.02
# No test waits this long; it only ensures that no thread outlives the suite.
PATIENCE_S = 30.0


@dataclass
class Visit:
    """One request as the provider received it."""

    region: str
    path: str
    headers: dict[str, str]
    body: bytes
    # The gateway closed the connection before the answer was complete.
    abandoned: bool = False
    method: str = "POST"

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Journal:
    """Every request to every provider, by model."""

    visits: dict[str, list[Visit]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, model: str, visit: Visit) -> None:
        with self.changed:
            self.visits.setdefault(model, []).append(visit)
            self.changed.notify_all()

    def abandon(self, visit: Visit) -> None:
        with self.changed:
            visit.abandoned = True
            self.changed.notify_all()

    def of(self, model: str) -> list[Visit]:
        with self.changed:
            return list(self.visits.get(model, []))

    def wait_visited(self, model: str, within_s: float) -> bool:
        return self._wait(lambda: self.visits.get(model), within_s)

    def wait_abandoned(self, model: str, within_s: float) -> bool:
        return self._wait(lambda: any(v.abandoned for v in self.visits.get(model, [])), within_s)

    def _wait(self, happened, within_s: float) -> bool:
        with self.changed:
            return bool(self.changed.wait_for(happened, within_s))


class Reset(Exception):
    """Raised by a behaviour to end the connection with RST instead of FIN."""


class Exchange:
    """One request being answered; behaviours write to it."""

    def __init__(self, conn: socket.socket, visit: Visit, journal: Journal):
        self.conn = conn
        self.visit = visit
        self.journal = journal
        self.ask = visit.json

    @property
    def streams(self) -> bool:
        return bool(self.ask.get("stream"))

    @property
    def wants_usage(self) -> bool:
        return bool((self.ask.get("stream_options") or {}).get("include_usage"))

    def whole(self, body: dict, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body, ensure_ascii=False).encode()
        self.head(status, {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})})
        self.conn.sendall(raw)

    def open_stream(self) -> None:
        self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def frame(self, data: dict | str) -> None:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        self._chunk(f"data: {text}\n\n".encode())

    def half_frame(self, data: dict) -> None:
        raw = f"data: {json.dumps(data)}".encode()
        self._chunk(raw[: len(raw) // 2])

    def raw(self, text: str) -> None:
        self._chunk(text.encode())

    def close_stream(self) -> None:
        self.conn.sendall(b"0\r\n\r\n")

    def gateway_left(self, within_s: float) -> bool:
        """Whether the gateway closes the connection within that time; notes it in the journal."""
        readable, _, _ = select.select([self.conn], [], [], within_s)
        if not readable:
            return False
        try:
            left = self.conn.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            left = True
        if left:
            self.journal.abandon(self.visit)
        return left

    def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Scripted"] + [f"{name}: {value}" for name, value in headers.items()]
        self.conn.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def _chunk(self, raw: bytes) -> None:
        self.conn.sendall(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")


# --- answers of a healthy provider ---------------------------------------------------------


def completion(ask: dict, message: dict, finish_reason: str) -> dict:
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1,
        "model": ask["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": USAGE,
        "vendor_note": {"kept": 12345678901234567890},
    }


def piece(ask: dict, delta: dict, finish_reason: str | None = None) -> dict:
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": ask["model"],
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def usage_piece(ask: dict) -> dict:
    return {**piece(ask, {}), "choices": [], "usage": USAGE}


def tool_call(arguments: str) -> dict:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def chat(x: Exchange) -> None:
    """Answers with `CONTENT`, or with one tool call when tools are offered."""
    tools = bool(x.ask.get("tools"))
    if not x.streams:
        message = {"role": "assistant", "content": None if tools else CONTENT}
        if tools:
            message["tool_calls"] = [tool_call(TOOL_ARGUMENTS)]
        return x.whole(completion(x.ask, message, "tool_calls" if tools else "stop"))
    x.open_stream()
    x.frame(piece(x.ask, {"role": "assistant", "content": None if tools else ""}))
    if tools:
        x.frame(piece(x.ask, {"tool_calls": [{"index": 0, **tool_call("")}]}))
        for at in range(0, len(TOOL_ARGUMENTS), 7):
            part = {"index": 0, "function": {"arguments": TOOL_ARGUMENTS[at : at + 7]}}
            x.frame(piece(x.ask, {"tool_calls": [part]}))
    else:
        for word in WORDS:
            x.frame(piece(x.ask, {"content": word}))
    x.frame(piece(x.ask, {}, "tool_calls" if tools else "stop"))
    if x.wants_usage:
        x.frame(usage_piece(x.ask))
    x.frame("[DONE]")
    x.close_stream()


def embeddings(x: Exchange) -> None:
    asked = x.ask["input"]
    inputs = asked if isinstance(asked, list) else [asked]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector = packed if x.ask.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(len(inputs))]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    x.whole({"object": "list", "data": data, "model": x.ask["model"], "usage": usage})


def response_object(ask: dict, status: str, output: list) -> dict:
    conversation = conversation_of(ask)
    return {
        "id": f"resp_{secrets.token_hex(8)}",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": ask["model"],
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE_USAGE if output else None,
        "vendor_note": {"kept": 12345678901234567890},
        **({"conversation": {"id": conversation}} if conversation else {}),
    }


def conversation_of(ask: dict) -> str | None:
    """The id of the conversation that a request for a response is a part of."""
    named = ask.get("conversation")
    return named["id"] if isinstance(named, dict) else named


def output_message(text: str) -> dict:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_scripted", "role": "assistant", "status": "completed", "content": [part]}


class ResponseEvents:
    """The events of one streamed response, numbered."""

    def __init__(self, x: Exchange):
        self.x, self.number, self.response = x, 0, response_object(x.ask, "in_progress", [])
        x.open_stream()
        self.send("response.created", response=self.response)
        self.send("response.in_progress", response=self.response)
        self.send("response.output_item.added", output_index=0, item={**output_message(""), "content": []})
        part = {"type": "output_text", "text": "", "annotations": []}
        self.send("response.content_part.added", item_id="msg_scripted", output_index=0, content_index=0, part=part)

    def event(self, kind: str, **members) -> str:
        data = {"type": kind, "sequence_number": self.number, **members}
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"

    def send(self, kind: str, **members) -> None:
        self.x.raw(self.event(kind, **members))
        self.number += 1

    def word(self, word: str) -> None:
        place = {"item_id": "msg_scripted", "output_index": 0, "content_index": 0}
        self.send("response.output_text.delta", **place, delta=word, logprobs=[])


def responses(x: Exchange) -> None:
    """Answers with `CONTENT`, and keeps it in the conversation that it is a part of."""
    if conversation := conversation_of(x.ask):
        said = output_message(CONTENT)
        CONVERSATIONS.add(conversation, [{"role": "user", "content": x.ask["input"]}, {**said, "id": f"msg_{secrets.token_hex(8)}"}])
    if not x.streams:
        response = response_object(x.ask, "completed", [output_message(CONTENT)])
        if x.ask.get("background"):
            queued = {**response, "status": "queued", "output": [], "usage": None}
            return x.whole(STORED.keep(queued, ending=response))
        return x.whole(STORED.keep(response))
    events = ResponseEvents(x)
    for word in WORDS:
        events.word(word)
    place = {"item_id": "msg_scripted", "output_index": 0}
    events.send("response.output_text.done", **place, content_index=0, text=CONTENT, logprobs=[])
    events.send("response.content_part.done", **place, content_index=0, part=output_message(CONTENT)["content"][0])
    events.send("response.output_item.done", output_index=0, item=output_message(CONTENT))
    whole = response_object(x.ask, "completed", [output_message(CONTENT)])
    events.send("response.completed", response={**whole, "id": events.response["id"]})
    x.close_stream()


def cut_response_mid_stream(x: Exchange) -> None:
    events = ResponseEvents(x)
    for word in WORDS[:3]:
        events.word(word)
    x.raw(events.event("response.output_text.delta", delta=WORDS[3])[:20])
    raise Reset


def fail_within_response(x: Exchange) -> None:
    """`response.failed` behind the first words."""
    events = ResponseEvents(x)
    events.word(WORDS[0])
    error = {"code": "server_error", "message": "The model gave up."}
    events.send("response.failed", response={**events.response, "status": "failed", "error": error})
    x.close_stream()


# --- answers of a broken one ---------------------------------------------------------------


def refuse(status: int, error: dict, headers: dict[str, str] | None = None):
    return lambda x: x.whole({"error": error}, status, headers)


def begin(x: Exchange) -> None:
    """A stream up to its third word."""
    x.open_stream()
    x.frame(piece(x.ask, {"role": "assistant", "content": ""}))
    for word in WORDS[:3]:
        x.frame(piece(x.ask, {"content": word}))


def cut_mid_stream(x: Exchange) -> None:
    begin(x)
    x.half_frame(piece(x.ask, {"content": WORDS[3]}))
    raise Reset


def die_mid_stream(x: Exchange) -> None:
    """As a process that is killed: what it wrote arrives, and nothing else."""
    begin(x)
    x.half_frame(piece(x.ask, {"content": WORDS[3]}))
    raise ConnectionAbortedError


def cut_before_first_token(x: Exchange) -> None:
    if x.streams:
        x.open_stream()
        x.frame(piece(x.ask, {"role": "assistant", "content": ""}))
    raise Reset


def stall_mid_stream(x: Exchange) -> None:
    begin(x)
    x.gateway_left(PATIENCE_S)
    raise Reset


def end_without_finish_reason(x: Exchange) -> None:
    begin(x)
    x.frame("[DONE]")
    x.close_stream()


def stay_silent(x: Exchange) -> None:
    x.gateway_left(PATIENCE_S)
    raise Reset


def stream_for_ever(x: Exchange) -> None:
    begin(x)
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        if x.gateway_left(ENDLESS_PACE_S):
            break
        x.frame(piece(x.ask, {"content": " and"}))
    raise Reset


def error_inside_200(x: Exchange) -> None:
    error = {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": "overloaded"}}
    if not x.streams:
        return x.whole(error)
    x.open_stream()
    x.frame(piece(x.ask, {"role": "assistant", "content": ""}))
    x.frame(error)
    x.close_stream()


BAD_FIELD = {"message": "temperature must be at most 2", "type": "invalid_request_error", "param": "temperature", "code": "decimal_above_max_value"}
BAD_ENTITY = {"message": "messages must alternate", "type": "invalid_request_error", "param": "messages", "code": "unprocessable"}
OURS_BROKE = {"message": "The server had an error", "type": "server_error", "param": None, "code": None}
SLOW_DOWN = {"message": "Too many requests", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}

# Provider → region; the gateway is configured to ask `us` first.
REGIONS = {"us": "us-east", "eu": "eu-central"}

HEALTHY = "acme/chat-large"
SPARE = "acme/chat-small"
EMBEDDER = "acme/embed-small"
RESPONDER = "acme/responder"
FORBIDDEN = "acme/forbidden"

# Model → how it behaves in both regions, or in `us` only while `eu` is healthy.
EVERYWHERE = {
    HEALTHY: chat,
    SPARE: chat,
    FORBIDDEN: chat,
    EMBEDDER: embeddings,
    RESPONDER: responses,
    "scene/response-cut": cut_response_mid_stream,
    "scene/response-failed": fail_within_response,
    "scene/response-refused": refuse(400, BAD_FIELD),
    "scene/refused-400": refuse(400, BAD_FIELD),
    "scene/refused-422": refuse(422, BAD_ENTITY),
    "scene/down": refuse(500, OURS_BROKE),
    "scene/down-streaming": refuse(500, OURS_BROKE),
    "scene/resting": refuse(429, SLOW_DOWN, {"retry-after": "20"}),
    "scene/cut": cut_mid_stream,
    "scene/stall": stall_mid_stream,
    "scene/short": end_without_finish_reason,
    "scene/endless": stream_for_ever,
    "scene/silent": stay_silent,
}
IN_US_ONLY = {
    "scene/us-error-in-200": error_inside_200,
    "scene/us-cut-early": cut_before_first_token,
    "scene/us-silent": stay_silent,
    "scene/us-down": refuse(503, OURS_BROKE),
    "scene/us-killed": die_mid_stream,
}
CHAT_MODELS = [model for model in [*EVERYWHERE, *IN_US_ONLY] if model != EMBEDDER]


def behaviour(model: str, region: str):
    if region == "us" and model in IN_US_ONLY:
        return IN_US_ONLY[model]
    return EVERYWHERE.get(model, chat)


# --- the socket ----------------------------------------------------------------------------


class Provider:
    """Listens on a port of the system's choice until `close`."""

    def __init__(self, region: str, journal: Journal):
        self.region = region
        self.journal = journal
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = conn.makefile("rb")
        try:
            while (visit := self.read(reader, self.region)) is not None:
                self._answer(conn, visit)
        except Reset:
            # Linger 0: what close() sends is RST.
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # the gateway closed the connection during a write; `gateway_left` records it where a test needs it
        finally:
            reader.close()
            conn.close()

    @classmethod
    def read(cls, reader, region: str) -> Visit | None:
        """The next request of a connection; `None` when the gateway closed it."""
        first = reader.readline()
        if not first.strip():
            return None
        headers = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(lambda: cls._read_chunk(reader), b""))
        else:
            body = reader.read(int(headers.get("content-length", "0")))
        return Visit(region, first.split()[1].decode(), headers, body, method=first.split()[0].decode())

    @staticmethod
    def _read_chunk(reader) -> bytes:
        raw = reader.read(int(reader.readline().split(b";")[0], 16))
        reader.readline()
        return raw

    def _answer(self, conn: socket.socket, visit: Visit) -> None:
        if visit.path.startswith("/journal"):
            return self._answer_journal(conn, visit)
        if visit.path.startswith("/v1/responses/resp_"):
            status, body = STORED.answer(visit.method, visit.path)
            visit.body = b"{}"
            return Exchange(conn, visit, self.journal).whole(body, status)
        if visit.path.startswith("/v1/conversations"):
            status, body = CONVERSATIONS.answer(visit.method, visit.path, json.loads(visit.body or b"{}"))
            visit.body = b"{}"
            return Exchange(conn, visit, self.journal).whole(body, status)
        model = visit.json["model"]
        self.journal.add(model, visit)
        behaviour(model, self.region)(Exchange(conn, visit, self.journal))

    def _answer_journal(self, conn: socket.socket, visit: Visit) -> None:
        """`/journal?model=…[&wait=visited|abandoned&within_s=…]`: the journal for tests in Node."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(visit.path).query).items()}
        wait = {"visited": self.journal.wait_visited, "abandoned": self.journal.wait_abandoned}.get(asked.get("wait", ""))
        happened = wait(asked["model"], float(asked["within_s"])) if wait else True
        visits = [
            {"region": v.region, "headers": v.headers, "body": v.body.decode(), "abandoned": v.abandoned}
            for v in self.journal.of(asked["model"])
        ]
        visit.body = b"{}"
        Exchange(conn, visit, self.journal).whole({"happened": happened, "visits": visits})
