"""Chat requests with one key on raw sockets, as fast as an event loop can make them: for loads that the official client is
too heavy for.

It must never retry, repair or drop a request itself.

Start reading at `RawClient`.
"""

import asyncio
import json

LIMIT = 256 * 1024


class RawClient:
    """Requests with one key, over connections that are kept."""

    def __init__(self, port, key):
        self.port, self.key, self.idle = port, key, []

    async def exchange(self, timeout, **members):
        """Status, head in lower case and body of one request; status 0 where the connection failed or `timeout` passed."""
        try:
            async with asyncio.timeout(timeout):
                return await self.once(json.dumps(members).encode())
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            return 0, b"", f"{type(error).__name__} {error}"

    async def once(self, body):
        kept = None
        while self.idle and kept is None:
            kept = self.idle.pop()
            kept = None if kept[0].at_eof() else kept
        reader, writer = kept or await asyncio.open_connection("127.0.0.1", self.port, limit=LIMIT)
        ended = False
        try:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %b\r\n"
                         b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                         % (self.key.encode(), len(body), body))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(b" ", 2)[1])
            text = await read_body(reader, head)
            ended = b"connection: close" not in head
            return status, head, text.decode("utf-8", "replace")
        finally:
            if ended:
                self.idle.append((reader, writer))
            else:
                writer.transport.abort()


async def read_body(reader, head):
    if b"transfer-encoding: chunked" in head:
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(parts)
    return await reader.readexactly(int(header(head, "content-length") or 0))


def header(head, name):
    """The value of a header in a head in lower case; `None` where it is not there."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return next((value.strip().decode() for known, _, value in lines if known == name.encode()), None)
