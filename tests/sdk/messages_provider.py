"""A scripted provider of Anthropic's Messages; the requested model decides what it does.

`claude/whole` and any other model answer in good order. `claude/cut` ends a stream within its text, `claude/overloaded`
sends an error event there, `claude/refuses` answers 400, `claude/busy` 529.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from quiet_http import QuietHandler

WORDS = ["The", " bridge", " stands", " – 石 –", " on."]
TEXT = "".join(WORDS)
USAGE = {
    "input_tokens": 20,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
    "output_tokens": 9,
}
MODELS = ["claude/whole", "claude/cut", "claude/overloaded", "claude/refuses", "claude/busy"]
MODEL = {"type": "model", "display_name": "A model", "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"}
MESSAGE = {"id": "msg_01", "type": "message", "role": "assistant", "stop_sequence": None, "usage": USAGE}


@dataclass
class MessagesProvider:
    """Listens on a port of the system's choice, until it is closed."""

    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self):
        provider = self

        class Handler(QuietHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                provider.heads.append({name.lower(): value for name, value in self.headers.items()})
                provider.bodies.append(body)
                answer(self, json.loads(body))

            def do_GET(self):
                path = self.path.split("?")[0].removeprefix("/v1/models")
                one = {**MODEL, "id": path.strip("/") or MODELS[0]}
                send(self, 200, one if path else {"data": [one], "has_more": False, "first_id": one["id"], "last_id": one["id"]})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(handler, body) -> None:
    model = body["model"]
    if model == "claude/refuses":
        return error(handler, 400, "invalid_request_error", "messages.0: it is refused")
    if model == "claude/busy":
        return error(handler, 529, "overloaded_error", "Overloaded")
    if handler.path.split("?")[0].endswith("/count_tokens"):
        return send(handler, 200, {"input_tokens": 2095})
    thinks = "thinking" in body
    uses_tool = bool(body.get("tools"))
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "EqQBsig=="}] if thinks else []
    blocks.append({"type": "text", "text": TEXT})
    if uses_tool:
        blocks.append({"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Zürich"}})
    reason = "tool_use" if uses_tool else "end_turn"
    if not body.get("stream"):
        return send(handler, 200, {**MESSAGE, "model": model, "content": blocks, "stop_reason": reason})
    stream(handler, model, blocks, reason)


def error(handler, status: int, kind: str, message: str) -> None:
    send(handler, status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_theirs"})


def send(handler, status: int, body) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("request-id", "req_theirs")
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def events(model: str, blocks, reason: str):
    start = {**MESSAGE, "model": model, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(blocks):
        kind = block["type"]
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[kind]
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
        pieces = {
            "text": lambda: [{"type": "text_delta", "text": word} for word in WORDS],
            "thinking": lambda: [
                {"type": "thinking_delta", "thinking": "Hm."},
                {"type": "signature_delta", "signature": block["signature"]},
            ],
            "tool_use": lambda: [
                {"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"city": ', '"Zürich"}')
            ],
        }[kind]()
        for delta in pieces:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": USAGE["output_tokens"]}}
    yield {"type": "message_stop"}


def stream(handler, model: str, blocks, reason: str) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream; charset=utf-8")
    handler.send_header("request-id", "req_theirs")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()

    def write(event) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        handler.wfile.flush()

    sent = 0
    for event in events(model, blocks, reason):
        sent += event["type"] == "content_block_delta"
        if sent == 3 and model == "claude/cut":
            handler.close_connection = True
            return
        if sent == 3 and model == "claude/overloaded":
            write({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
            break
        write(event)
    handler.wfile.write(b"0\r\n\r\n")
