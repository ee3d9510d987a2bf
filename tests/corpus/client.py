"""A plain HTTP client that keeps an answer to the byte, and how it ended."""

import asyncio
import json
import re
from codecs import BOM_UTF8
from dataclasses import dataclass

from verdict import Got, events

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
# Longer than any of the gateway's own limits in these tests.
PATIENCE_S = 60.0


@dataclass
class Answer:
    """What came: `torn` where its transport did not end in good order."""

    status: int
    headers: dict[str, str]
    body: bytes
    torn: bool = False
    hung: bool = False

    def got(self, mode: str, usage_asked: bool, n: int = 1) -> Got:
        """As an application sees it. An end that is missing and not told is `short`."""
        if self.hung:
            return Got("hang")
        if self.status >= 400:
            return Got("error", error=str(self.status), detail=self.body[:500].decode("utf-8", "replace"))
        if mode == "stream":
            return self._stream(usage_asked, n)
        if self.torn:
            return Got("error", error=str(self.status), detail="torn")
        label = self.headers.get("content-type", "").partition(";")[0]
        if label != "application/json" and not label.endswith("+json"):
            # For the Node client it is text.
            return Got("short", detail=f"labelled {label!r}")
        value = json.loads(self.body.decode("utf-8-sig", "replace"))
        if value.get("error"):
            return Got("short", detail="an error inside a 2xx")
        return Got.of([value], mode, usage_asked, n)

    def _stream(self, usage_asked: bool, n: int) -> Got:
        """Strict: no frame that a client would have to forgive, one `[DONE]` and nothing after it."""
        if not self.headers.get("content-type", "").lower().startswith("text/event-stream"):
            return Got("short", detail=f"labelled {self.headers.get('content-type')!r}")
        if self.body.startswith(BOM_UTF8):
            # With which the Python client loses the first frame.
            return Got("short", detail="a byte order mark")
        parts, done = [], False
        for name, data in events(self.body):
            if done:
                return Got("short", detail=f"after [DONE]: {data[:100]}")
            if data.strip().startswith("[DONE]"):
                done = True
                continue
            try:
                value = json.loads(data)
            except ValueError:
                return Got("short", detail=f"no JSON: {data[:100]}")
            if not isinstance(value, dict):
                return Got("short", detail=f"no object: {data[:100]}")
            if value.get("error") or name == "error":
                return Got("error", error=str(self.status), detail=data[:500])
            parts.append(value)
        if self.torn or not done:
            return Got("short", detail="torn" if self.torn else "no [DONE]")
        if not usage_asked and any("usage" in part for part in parts):
            return Got("short", detail="a usage member that was not asked for")
        return Got.of(parts, "stream", usage_asked, n)


class Client:
    """One connection to the gateway, opened again where it was closed."""

    def __init__(self, url: str):
        self.host, port = re.match(r"http://([^:/]+):(\d+)", url).groups()
        self.port = int(port)
        self.reader = self.writer = None

    async def post(self, path: str, headers: list[str], body: bytes, half_close: bool = False) -> Answer:
        if self.writer is None or half_close:
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        head = [f"POST {path} HTTP/1.1", "host: tierway", "content-type: application/json", f"content-length: {len(body)}", *headers]
        self.writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body)
        if half_close:
            self.writer.write_eof()
        try:
            answer = await asyncio.wait_for(self._read(), PATIENCE_S)
        except asyncio.TimeoutError:
            answer = Answer(0, {}, b"", hung=True)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            answer = Answer(599, {}, repr(error).encode())
        if answer.torn or answer.hung or answer.status == 599 or half_close or answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def _read(self) -> Answer:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        answer = Answer(int(first.split()[1]), headers, b"")
        chunks = Chunks() if headers.get("transfer-encoding") == "chunked" else None
        try:
            if chunks is None:
                answer.body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            while chunks is not None and not chunks.over:
                read = await self.reader.read(1 << 18)
                if not read:
                    raise ConnectionResetError
                chunks.push(read)
        except (ConnectionError, asyncio.IncompleteReadError):
            answer.torn = True
        if chunks is not None:
            answer.body = b"".join(chunks.parts)
        return answer


class Chunks:
    """Reads a chunked body. An event loop's turn for each of its chunks would take most of the tests' time."""

    def __init__(self):
        self.left = bytearray()
        self.parts: list[bytes] = []
        self.over = False

    def push(self, read: bytes) -> None:
        self.left += read
        at = 0
        while (line := self.left.find(b"\r\n", at)) >= 0:
            size = int(self.left[at:line], 16)
            end = line + 2 + size
            if len(self.left) < end + 2:
                break
            self.parts.append(bytes(self.left[line + 2 : end]))
            at = end + 2
            self.over |= size == 0
        del self.left[:at]
