"""The providers of `make attacks`: they are well, but answer a request with the failure that it asks for in `user`.

Every other request gets an answer: one whose `user` is `slow` takes longer than the gateway waits before it looks
for silence. It must never fail a request that does not ask for it.

Start reading at `KINDS`.
"""

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from typing import Callable

from raw_client import LIMIT

#: Statuses, and those of them that a dozen keys may meet for reasons of the provider's own.
STATUSES = [400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 422, 425, 429, 451, 500, 501, 502, 503, 504, 507, 520, 529]
WORDS = "These are the words of the provider"


@dataclass(frozen=True)
class Kind:
    """One failure."""

    name: str
    #: Takes the provider's reader and writer, and the request.
    fail: Callable
    #: Seconds after which its clients leave; `None`: they wait.
    leaves_after: float | None = None
    #: Whether it may be a fault of the provider: then a dozen keys meet it as well.
    is_fault: bool = True


def of_status(status, retry_after=None, body=None):
    async def fail(_, writer, __):
        more = f"retry-after: {retry_after}\r\n" if retry_after else ""
        await send(writer, status, body or {"error": {"message": WORDS, "type": "x", "param": None, "code": None}}, more)

    return fail


def of_body(whole, frames, end=b"0\r\n\r\n"):
    """A 200 with this body; `frames` for a stream, ended by `end`."""

    async def fail(_, writer, ask):
        if not ask.get("stream"):
            return await send(writer, 200, whole)
        writer.write(EVENTS)
        for frame in frames:
            writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        writer.write(end)
        await writer.drain()

    return fail


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HALF = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x", "choi'


def frame(**members):
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "small"}
    return f"data: {json.dumps({**base, **members})}\n\n".encode()


FIRST = frame(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}])
DONE = b"data: [DONE]\n\n"
ERROR = {"error": {"message": WORDS, "type": "server_error", "code": None}}
EMPTY = {"id": "x", "object": "chat.completion", "created": 1, "model": "small", "choices": []}


async def until_it_leaves(reader):
    while await reader.read(65536):
        pass
    raise ConnectionResetError


async def silence(reader, _, __):
    await until_it_leaves(reader)


async def head_then_silence(reader, writer, ask):
    writer.write(EVENTS if ask.get("stream") else HALF)
    await writer.drain()
    await until_it_leaves(reader)


async def stall(reader, writer, ask):
    writer.write(EVENTS + b"%x\r\n%b\r\n" % (len(FIRST), FIRST) if ask.get("stream") else HALF)
    await writer.drain()
    await until_it_leaves(reader)


async def comments(_, writer, __):
    writer.write(EVENTS)
    while True:
        writer.write(b"8\r\n: wait\n\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)


async def closed(_, __, ___):
    raise ConnectionResetError


async def reset_before(_, writer, __):
    reset(writer)
    raise ConnectionResetError


async def begun(writer, ask):
    writer.write(EVENTS + b"%x\r\n%b\r\n" % (len(FIRST), FIRST) if ask.get("stream") else HALF)
    await writer.drain()
    await asyncio.sleep(0.01)


async def cut(_, writer, ask):
    await begun(writer, ask)
    raise ConnectionResetError


async def reset_within(_, writer, ask):
    await begun(writer, ask)
    reset(writer)
    raise ConnectionResetError


async def no_http(_, writer, __):
    writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    await writer.drain()
    raise ConnectionResetError


#: Every kind by its name.
KINDS = {kind.name: kind for kind in [
    *(Kind(str(status), of_status(status), is_fault=status >= 500 or status == 408) for status in STATUSES),
    Kind("307", of_status(307, body=b""), is_fault=False),
    Kind("429 for 30 s", of_status(429, retry_after=30), is_fault=False),
    Kind("503 for 30 s", of_status(503, retry_after=30)),
    Kind("silence", silence),
    Kind("silence, client leaves", silence, leaves_after=0.3),
    Kind("head, then silence", head_then_silence),
    Kind("stall after a token", stall),
    Kind("comments only", comments),
    Kind("closed", closed),
    Kind("reset", reset_before),
    Kind("cut after a token", cut),
    Kind("reset after a token", reset_within),
    Kind("no HTTP", no_http),
    Kind("no JSON", of_body(b"<html>", [b"data: <html>\n\n"])),
    Kind("200 without a choice", of_body(EMPTY, [frame(choices=[]), DONE])),
    Kind("200, empty", of_body(b"", [])),
    Kind("error inside 200", of_body(ERROR, [f"data: {json.dumps(ERROR)}\n\n".encode(), DONE])),
    Kind("error after a token", of_body(ERROR, [FIRST, f"data: {json.dumps(ERROR)}\n\n".encode(), DONE])),
]}


# --- the providers ----------------------------------------------------------------------------


class Provider:
    """One region."""

    def __init__(self, fails):
        #: Whether it fails what asks for it.
        self.fails = fails
        self.server = None

    async def start(self):
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=LIMIT, backlog=1024)
        return self.server.sockets[0].getsockname()[1]

    async def connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                               if line.startswith(b"content-length:")), 0)
                ask = json.loads(await reader.readexactly(length) or b"{}")
                user = ask.get("user") or ""
                if self.fails and user.startswith("fail:"):
                    await KINDS[user.removeprefix("fail:")].fail(reader, writer, ask)
                else:
                    await answer(writer, ask, slow=user == "slow")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def answer(writer, ask, slow):
    if not ask.get("stream"):
        await asyncio.sleep(1.4 if slow else 0.03)
        message = {"role": "assistant", "content": "Hello"}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": ask["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        await send(writer, 200, body)
        return
    await asyncio.sleep(0.9 if slow else 0.02)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for number in range(4):
        if number:
            await asyncio.sleep(0.12 if slow else 0.005)
        delta = {"role": "assistant", "content": "Hel"} if number == 0 else {"content": "lo"}
        write_frame(writer, ask, delta, None)
        await writer.drain()
    write_frame(writer, ask, {}, "stop")
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


def write_frame(writer, ask, delta, finish):
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": ask["model"],
             "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    frame = f"data: {json.dumps(chunk)}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))


async def send(writer, status, body, more=""):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    await writer.drain()


def reset(writer):
    """Ends the connection so that the other side reads a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
