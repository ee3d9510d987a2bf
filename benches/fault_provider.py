"""Providers that fail on command, one port each in one process: `fault_provider.py NAME …`.

They speak chat completions, whole and streamed, on raw sockets: a library for HTTP would not let them
fall silent in the middle of an answer. The first line of stdout has the port of each; every line of stdin
is a fault for one of them, and is answered by a line when it is in effect. The end of stdin ends the process.

It must never fail unless told to: a request that the load loses is the gateway's or the client's.

Start reading at `Provider.answer`.
"""

import argparse
import asyncio
import collections
import json
import random
import socket
import struct
import sys
from dataclasses import dataclass

BACKLOG = 4096
#: Connections that fill the queue of a socket that is not accepted from any more.
FILLERS = 4
#: Larger than any request of the benchmarks.
HEAD_LIMIT = 64 * 1024


@dataclass
class Fault:
    """What a provider does instead of answering.

    kind: "status" (answers with `status`), "silent" (accepts, reads, and sends nothing more, on open streams
    too), "black_hole" (silent, accepts nothing, and its queue of connections is full), "refused" (nothing listens any
    more), "slow" (`times` as slow), "cut" (closes whatever is not complete `after_s` seconds after its request), "broken"
    (half of the answer, and then `end`), "says" (a 200 with `text` as its body, or as a frame behind two good ones).
    """

    kind: str
    status: int = 503
    #: Of the requests, for "status" and "slow". The draw belongs to the request's `seed` and to how often it came with this
    #: credential, to whichever provider of the process, so that two loads with one seed meet the same faults.
    share: float = 1.0
    #: The value of the header of that name, if it is to be sent.
    retry_after: str | None = None
    #: Only requests with this credential meet the fault; without it all do.
    credential: str | None = None
    times: int = 20
    after_s: float = 5.0
    #: How a "broken" answer ends: "fin", "rst", "stall", or "clean" as if it were whole.
    end: str = "fin"
    text: str = ""
    #: The error of "status", if it is not the usual one.
    error: dict | None = None
    #: Only so many requests meet the fault, if it is given; and only every so many of them.
    first: int | None = None
    every: int = 1
    #: How many requests came since it began.
    arrived: int = 0


class Provider:
    """One host: its listener, its open connections and its present fault."""

    def __init__(self, name, first_s, pace_s, arrivals):
        self.name, self.first_s, self.pace_s, self.arrivals = name, first_s, pace_s, arrivals
        self.fault = None
        self.fillers = []
        self.tasks = set()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(BACKLOG)
        self.listener.setblocking(False)
        self.accepting = None

    @property
    def port(self):
        return self.listener.getsockname()[1]

    def serve(self):
        self.accepting = asyncio.create_task(self.accept())

    async def accept(self):
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self.listener)
            task = asyncio.create_task(self.serve_connection(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def fail(self, fault):
        self.fault = fault
        if fault and fault.kind == "refused":
            self.accepting.cancel()
            self.listener.close()
        if fault and fault.kind == "black_hole":
            self.accepting.cancel()
            # On Linux a second listen() changes the length of the queue.
            self.listener.listen(0)
            for _ in range(FILLERS):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self.fillers.append(filler)

    # --- one connection -----------------------------------------------------------------------

    async def serve_connection(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = await asyncio.open_connection(sock=connection, limit=HEAD_LIMIT)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                ask = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
                fault = self.draw(headers.get("authorization", "").removeprefix("bearer "), ask.get("seed"))
                try:
                    async with asyncio.timeout(fault.after_s if fault and fault.kind == "cut" else None):
                        await self.answer(reader, writer, ask, fault)
                except TimeoutError:
                    writer.transport.abort()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def draw(self, credential, seed):
        """The fault that this request meets, if it meets one."""
        fault, times = self.fault, self.arrivals[credential, seed]
        self.arrivals[credential, seed] += 1
        if not fault or (fault.credential and fault.credential.lower() != credential):
            return None
        fault.arrived += 1
        if (fault.first is not None and fault.arrived > fault.first) or fault.arrived % fault.every:
            return None
        return fault if random.Random(f"{seed}/{times}").random() < fault.share else None

    async def answer(self, reader, writer, ask, fault):
        if fault and fault.kind == "status":
            return await refuse(writer, fault)
        times = fault.times if fault and fault.kind == "slow" else 1
        tokens = int(ask.get("max_tokens") or 10)
        if ask.get("stream"):
            return await self.stream(reader, writer, ask, tokens, times, fault)
        await self.pause(reader, (self.first_s + self.pace_s * (tokens - 1)) * times)
        if fault and fault.kind == "says":
            return await send_raw(writer, "200 OK", fault.text.encode())
        raw = json.dumps(whole(ask, tokens, self.name)).encode()
        if fault and fault.kind == "broken":
            half = raw[: len(raw) // 2]
            await send_raw(writer, "200 OK", half, length=None if fault.end == "clean" else len(raw))
            return await break_off(reader, writer, fault)
        await send_raw(writer, "200 OK", raw)

    async def stream(self, reader, writer, ask, tokens, times, fault):
        await self.pause(reader, self.first_s * times)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(tokens):
            if number:
                await self.pause(reader, self.pace_s * times)
            delta = {"role": "assistant", "content": "tok "} if number == 0 else {"content": "tok "}
            write_frame(writer, json.dumps(chunk(ask, [{"index": 0, "delta": delta, "finish_reason": None}])))
            await writer.drain()
            if fault and number == 1 and fault.kind in ("broken", "says"):
                if fault.kind == "says":
                    write_frame(writer, fault.text)
                if fault.kind == "says" or fault.end == "clean":
                    writer.write(b"0\r\n\r\n")
                return await break_off(reader, writer, fault)
        write_frame(writer, json.dumps(chunk(ask, [{"index": 0, "delta": {}, "finish_reason": "stop"}])))
        if (ask.get("stream_options") or {}).get("include_usage"):
            write_frame(writer, json.dumps({**chunk(ask, []), "usage": usage(tokens)}))
        write_frame(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def pause(self, reader, seconds):
        """Waits before sending more; for ever, until the other side leaves, if the provider is silent then."""
        await asyncio.sleep(seconds)
        if self.fault and self.fault.kind in ("silent", "black_hole"):
            while await reader.read(HEAD_LIMIT):
                pass
            raise ConnectionResetError


# --- what is sent -----------------------------------------------------------------------------


async def break_off(reader, writer, fault):
    """Ends an answer of which a part was written."""
    await writer.drain()
    if fault.kind == "says" or fault.end == "clean":
        return
    if fault.end == "stall":
        while await reader.read(HEAD_LIMIT):
            pass
    if fault.end == "rst":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raise ConnectionResetError


async def refuse(writer, fault):
    kinds = {429: "rate_limit_error", 401: "authentication_error"}
    usual = {"message": f"The provider answers {fault.status}.", "type": kinds.get(fault.status, "server_error"), "code": None}
    error = fault.error or usual
    more = f"retry-after: {fault.retry_after}\r\n" if fault.retry_after is not None else ""
    await send_json(writer, f"{fault.status} Fault", {"error": error}, more)


async def send_json(writer, status, body, more=""):
    await send_raw(writer, status, json.dumps(body).encode(), more)


async def send_raw(writer, status, raw, more="", length=None):
    """`length`: what the head promises, if it is more than comes."""
    length = len(raw) if length is None else length
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
    writer.write(head.encode() + raw)
    await writer.drain()


def write_frame(writer, data):
    frame = f"data: {data}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))


def usage(tokens):
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}


def chunk(ask, choices):
    return {"id": "chatcmpl-fault", "object": "chat.completion.chunk", "created": 1, "model": ask["model"], "choices": choices}


def whole(ask, tokens, name):
    message = {"role": "assistant", "content": "tok " * tokens}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    return {"id": "chatcmpl-fault", "object": "chat.completion", "created": 1, "model": ask["model"], "choices": choices,
            "usage": usage(tokens), "system_fingerprint": name}


# --- the process ------------------------------------------------------------------------------


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--first-ms", type=float, default=80)
    parser.add_argument("--pace-ms", type=float, default=20)
    args = parser.parse_args()
    arrivals = collections.Counter()
    providers = {name: Provider(name, args.first_ms / 1000, args.pace_ms / 1000, arrivals) for name in args.names}
    for provider in providers.values():
        provider.serve()
    print(json.dumps({name: provider.port for name, provider in providers.items()}), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        providers[command.pop("provider")].fail(Fault(**command) if command.get("kind") else None)
        print("in effect", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
