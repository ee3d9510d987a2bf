"""A scripted provider on raw sockets: it sends what a case says, cut as the request says.

A request's `user` member is its plan: `whole`, `bytes` (each byte by itself), or `cut:N` (in two at byte N).
With `transfer-encoding: chunked` each piece is a chunk, which a reader gets by itself whatever the sockets do;
otherwise each piece is written by itself.
"""

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# How a chunk's size is written, and the last one: plainly, or with all that the grammar permits.
CHUNK_HEADS = {"chunked": b"%x\r\n", "chunked-odd": b'000%X ;part="one; two"\r\n'}
CHUNKS_END = {"chunked": b"0\r\n\r\n", "chunked-odd": b"0;last\r\nx-checksum: 1\r\nx-time: 2\r\n\r\n"}
# No request takes longer: only so that nothing outlives the tests.
PATIENCE_S = 30.0


@dataclass
class Reply:
    """One answer, to the byte."""

    wire: bytes
    status: int = 200
    headers: list[str] = field(default_factory=list)
    framing: str = "chunked"
    end: str = "clean"
    status_line: str = ""
    # Statuses of the responses that come before it.
    interim: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, case) -> "Reply":
        said = case.reply
        named = {name: said[name] for name in ("status", "headers", "framing", "end", "status_line", "interim") if name in said}
        return cls(case.wire, **named)


def pieces(wire: bytes, plan: str) -> list[bytes]:
    plan = plan.partition(";")[0]
    if plan == "bytes":
        return [wire[at : at + 1] for at in range(len(wire))]
    if plan.startswith("cut:"):
        at = int(plan.removeprefix("cut:"))
        return [piece for piece in (wire[:at], wire[at:]) if piece]
    return [wire] if wire else []


class Provider:
    """Serves until `close`, in a thread of its own. `lookup` gives the reply for a path's first part and a plan."""

    def __init__(self, lookup: Callable[[str, str], Reply]):
        self.lookup = lookup
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result()
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _stop(self) -> None:
        self.server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _start(self):
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled by `close` only.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader, writer) -> bool:
        """One request and its answer; whether the connection lives on."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length:
            body = await reader.readexactly(int(length[1]))
        else:
            body = b""
            while (size := int((await reader.readline()).split(b";")[0], 16)) > 0:
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        plan = json.loads(body).get("user", "whole") if body else "whole"
        reply = self.lookup(head.split(b" ", 2)[1].decode().split("/")[1], plan)
        await self._answer(reply, plan, reader, writer)
        return reply.end == "clean" and reply.framing != "close"

    async def _answer(self, reply: Reply, plan: str, reader, writer) -> None:
        head = [reply.status_line or f"HTTP/1.1 {reply.status} Scripted", *reply.headers]
        head = [*(line for status in reply.interim for line in (f"HTTP/1.1 {status} Interim", "link: </>", "")), *head]
        cut = pieces(reply.wire, plan)
        if reply.framing in CHUNK_HEADS:
            head.append("transfer-encoding: chunked")
            cut = [CHUNK_HEADS[reply.framing] % len(piece) + piece + b"\r\n" for piece in cut]
            if reply.end == "clean":
                cut.append(CHUNKS_END[reply.framing])
            cut = [b"".join(cut)]
        elif reply.framing == "length":
            # A connection that ends otherwise ends before what was promised.
            promised = len(reply.wire) + (reply.end != "clean")
            head.append(f"content-length: {promised}")
        else:
            head.append("connection: close")
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        for piece in cut:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if reply.end == "hold":
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        elif reply.end == "reset":
            # Linger 0: what close sends is RST. What was sent before can still be read.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
