"""The official Python client's own reader of streams against the gateway's, on streams that were spoilt at random.

    fuzz.py [--rounds 2000] [--seed 1]

Wherever the client gets a whole answer of a stream, it must get the same one through the gateway; and whatever the
gateway presents as whole must be whole. A stream that breaks the rule is made as short as it can be, and printed as
a case's `[reply]`.
"""

import argparse
import asyncio
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass

import httpx2
import openai
from case import Case, load_all
from client import PATHS, Client
from gateway import KEY, Gateway
from openai.types.chat import ChatCompletionChunk
from provider import Provider, Reply, pieces
from toml_text import toml
from verdict import Got, read_stream, read_whole

NAME = "fuzz"
AT_ONCE = 6
# Larger bodies are spoilt less often than they cost.
LONGEST = 4 << 10
# Up to which length runs of so many bytes are taken away.
SHRUNK = {64: 8192, 16: 2048, 4: 1024, 1: 600}
ENDS = ["clean"] * 8 + ["close", "reset"]
# Asked for as a whole, the same stream is put together by the gateway: it must come to the same.
MODES = ["stream", "stream", "whole"]
WORDS = [
    b"data: [DONE]\n\n", b"data: [DONE]", b"[DONE]", b"data:", b"data: ", b"event: error\n", b"event: x\n", b"id: 1\n", b"retry: 1\n", b": c\n", b":\n\n",
    b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"null", b"NaN", b"-Infinity", b"true", b"{}", b"[]", b'""', b"0", b"1e9", b'"stop"',
    b'"error"', b'"finish_reason":"stop"', b'"finish_reason":null', b'"error":{"message":"x"},', b'"error":null,', b'"choices":[],', b'"index":1', b'"index":0,',
    b'"content":"x"', b'"content":"x",', b'"delta":{},', b'"usage":null,', b"\\u0000", b"\\ud83d", b"\\ude00", b"\x00", b"\xff", b"\xe7\x9f", b",", b"}", b"{", b'"', b" ", b"\t",
]


@dataclass
class Spoilt:
    """One stream, how it is cut and how it ends, and what the client asks for."""

    wire: bytes
    plan: str = "whole"
    end: str = "clean"
    mode: str = "stream"


# --- spoiling ---------------------------------------------------------------------------------


def spoil(rng: random.Random, bodies: list[bytes]) -> Spoilt:
    body = rng.choice(bodies)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        body = rng.choice(WAYS)(rng, body, bodies)[: 2 * LONGEST]
    plan = rng.choice(["whole", "bytes", f"cut:{rng.randrange(len(body) + 1)}"])
    return Spoilt(body, plan, rng.choice(ENDS), rng.choice(MODES))


def place(rng: random.Random, body: bytes) -> int:
    """Anywhere, or where something begins or ends."""
    marks = [at for at in range(len(body)) if body[at] in b'\n\r{}[]",:']
    return rng.choice(marks) if marks and rng.random() < 0.7 else rng.randrange(len(body) + 1)


def insert(rng, body, _):
    at = place(rng, body)
    return body[:at] + rng.choice(WORDS) + body[at:]


def replace(rng, body, _):
    at = place(rng, body)
    return body[:at] + rng.choice(WORDS) + body[at + rng.randrange(12) :]


def remove(rng, body, _):
    at = place(rng, body)
    return body[:at] + body[at + rng.choice([1, 1, 1, 2, 4, 16, 64]) :]


def flip(rng, body, _):
    at = rng.randrange(len(body) or 1)
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def cut_off(rng, body, _):
    return body[: place(rng, body)]


def frames(body: bytes) -> list[bytes]:
    return [part + b"\n\n" for part in body.split(b"\n\n") if part]


def drop_frame(rng, body, _):
    parts = frames(body)
    if parts:
        del parts[rng.randrange(len(parts))]
    return b"".join(parts)


def double_frame(rng, body, _):
    parts = frames(body)
    if parts:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    return b"".join(parts)


def swap_frames(rng, body, _):
    parts = frames(body)
    if len(parts) > 1:
        at = rng.randrange(len(parts) - 1)
        parts[at : at + 2] = reversed(parts[at : at + 2])
    return b"".join(parts)


def join(rng, body, bodies):
    other = frames(rng.choice(bodies))
    parts = frames(body)
    at = rng.randrange(len(parts) + 1)
    return b"".join(parts[:at] + other[rng.randrange(len(other) or 1) :][:2] + parts[at:])


def newlines(rng, body, _):
    new = rng.choice([b"\r\n", b"\r"])
    if rng.random() < 0.5:
        return body.replace(b"\r\n", b"\n").replace(b"\n", new)
    at = rng.randrange(len(body) + 1)
    return body[:at] + body[at:].replace(b"\n", new, rng.choice([1, 2, 3]))


WAYS = [insert, insert, replace, remove, flip, cut_off, drop_frame, double_frame, swap_frames, join, newlines]


# --- the two readers --------------------------------------------------------------------------


class Body(httpx2.SyncByteStream):
    """What a connection would bring."""

    def __init__(self, spoilt: Spoilt):
        self.spoilt = spoilt

    def __iter__(self):
        # The client takes a byte order mark for a part of its first line, which it then loses: nobody misses that.
        yield from pieces(self.spoilt.wire.removeprefix(b"\xef\xbb\xbf"), self.spoilt.plan)
        if self.spoilt.end != "clean":
            raise httpx2.ReadError("the connection broke")


def ask_client(client: openai.OpenAI, spoilt: Spoilt) -> Got:
    """What the client's own code makes of these bytes, without a socket."""
    request = httpx2.Request("POST", "http://provider/v1/chat/completions")
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(spoilt), request=request)
    parts = []
    try:
        for part in openai.Stream(cast_to=ChatCompletionChunk, response=response, client=client):
            parts.append(part.to_dict(warnings=False) if isinstance(part, openai.BaseModel) else part)
    except Exception as raised:  # whatever an application would have to catch
        return Got("error", error=type(raised).__name__)
    return Got.of(parts, "stream", False)


class Judge:
    """Asks both readers, and says where the gateway's breaks the rule."""

    def __init__(self):
        self.streams: dict[str, Reply] = {}
        self.provider = Provider(lambda _, plan: self.streams[plan.partition(";")[2]])
        self.gateway = Gateway(self.provider.url, [(NAME, {}, "chat")])
        self.client = openai.OpenAI(base_url="http://provider", api_key=KEY, max_retries=0)
        self.case = Case(NAME, "", "frames")
        self.seen = Counter()

    def close(self) -> None:
        self.gateway.close()
        self.provider.close()

    def judge(self, streams: list[Spoilt]) -> list[str]:
        """What is wrong with each; an empty text where nothing is."""
        through = asyncio.run(self._ask_gateway(streams))
        direct = [ask_client(self.client, spoilt) for spoilt in streams]
        if len(streams) > 1:
            self.seen.update((one.ends, other.ends) for one, other in zip(direct, through))
        return [compare(*each) for each in zip(streams, direct, through)]

    async def _ask_gateway(self, streams: list[Spoilt]) -> list[Got]:
        self.streams = {str(at): Reply(spoilt.wire, headers=["content-type: text/event-stream"], end=spoilt.end) for at, spoilt in enumerate(streams)}
        waiting, results = iter(enumerate(streams)), [Got("hang")] * len(streams)

        async def worker() -> None:
            client = Client(self.gateway.url)
            for at, spoilt in waiting:
                answer = await client.post(PATHS["chat"], self.case.headers(KEY), self.case.body(spoilt.mode, f"{spoilt.plan};{at}"))
                results[at] = answer.got(spoilt.mode, False)
            client.close()

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return results

    def shortest(self, spoilt: Spoilt, kind: str) -> Spoilt:
        """Takes away frames, then runs of bytes, while the rule stays broken in the same way."""
        if spoilt.plan.startswith("cut"):
            spoilt = self._unless_mended(spoilt, Spoilt(spoilt.wire, "whole", spoilt.end, spoilt.mode), kind)
        at = 0
        while at < len(parts := frames(spoilt.wire)):
            shorter = Spoilt(b"".join(parts[:at] + parts[at + 1 :]), spoilt.plan, spoilt.end, spoilt.mode)
            if (kept := self._unless_mended(spoilt, shorter, kind)) is spoilt:
                at += 1
            spoilt = kept
        for size in (64, 16, 4, 1):
            at = 0
            while at < len(spoilt.wire) <= SHRUNK[size]:
                shorter = Spoilt(spoilt.wire[:at] + spoilt.wire[at + size :], spoilt.plan, spoilt.end, spoilt.mode)
                if (kept := self._unless_mended(spoilt, shorter, kind)) is spoilt:
                    at += size
                spoilt = kept
        return spoilt

    def _unless_mended(self, spoilt: Spoilt, shorter: Spoilt, kind: str) -> Spoilt:
        return shorter if self.judge([shorter])[0].startswith(kind) else spoilt


def is_own_matter(spoilt: Spoilt, direct: Got, through: Got) -> bool:
    """Whether the gateway may do otherwise than the client: what is vague, an event that is called an error, and a byte
    order mark within the stream, which it takes away where a line begins with it."""
    return direct.vague or through.vague or bool(re.search(rb"event: ?error|[\r\n]\xef\xbb\xbf", spoilt.wire))


def compare(spoilt: Spoilt, direct: Got, through: Got) -> str:
    """What is wrong with what came through the gateway; an empty text where nothing is."""
    if through.ends not in ("answer", "error") and not through.vague:
        return f"a client would not notice: {through.ends} ({through.detail}), {through.describe()}"
    if direct.ends == "answer" and not is_own_matter(spoilt, direct, through) and said(through, spoilt) != said(direct, spoilt):
        return f"harsher than the client, which gets {direct.describe()}: {through.ends} {through.error} {through.describe()}"
    if direct.ends != "answer" and through.ends == "answer":
        careful = read_stream(spoilt.wire, False)
        # JSON where a stream was asked for is an answer, too.
        careful = read_whole(spoilt.wire) if careful.ends != "answer" else careful
        if careful.ends != "answer" or not careful.vague and said(careful, spoilt) != said(through, spoilt):
            return f"an end that is not there: {through.describe()}; a careful reader gets {careful.ends} {careful.detail} {careful.describe()}"
    return ""


def said(got: Got, spoilt: Spoilt) -> list[dict]:
    """What is compared. How members are put together that no standard names is the gateway's own matter."""
    if spoilt.mode == "stream":
        return got.choices
    return [{name: value for name, value in choice.items() if name != "also"} for choice in got.choices]


def shown(spoilt: Spoilt) -> str:
    try:
        text = spoilt.wire.decode("utf-8")
    except UnicodeDecodeError:
        return f"{spoilt.wire!r}  ({spoilt.plan}, {spoilt.end}, {spoilt.mode})"
    return f"body = {toml(text, 'body')}  # {spoilt.plan}, {spoilt.end}, {spoilt.mode}"


def bodies() -> list[bytes]:
    """The streams of the corpus, plain, except those that the gateway does not master yet."""
    mastered = [case for case in load_all() if case.endpoint == "chat" and not any(map(case.known_failing, case.modes))]
    found = {case.plain_bytes() for case in mastered if b"data:" in case.plain_bytes()[:400]}
    return sorted(body for body in found if len(body) <= LONGEST)


def run(rounds: int, seed: int, batch: int = 500, most: int = 5) -> list[str]:
    """The broken streams of so many rounds, at most so many, each with what is wrong."""
    rng, sources = random.Random(seed), bodies()
    judge, broken, kinds = Judge(), [], set()
    try:
        for start in range(0, rounds, batch):
            streams = [spoil(rng, sources) for _ in range(min(batch, rounds - start))]
            for spoilt, wrong in zip(streams, judge.judge(streams)):
                if wrong and len(broken) < most:
                    small = judge.shortest(spoilt, wrong.split(":")[0][:20])
                    again = judge.judge([small])[0] or wrong
                    if (shape := again[:60]) not in kinds:
                        kinds.add(shape)
                        broken.append(f"{again}\n{shown(small)}")
            if len(broken) >= most:
                break
    finally:
        judge.close()
    print(f"seed {seed}: {rounds} streams; directly and through the gateway: " + ", ".join(f"{a}/{b} {n}" for (a, b), n in sorted(judge.seen.items())))
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    broken = run(asked.rounds, asked.seed)
    print("\n\n".join(broken) or "the rule holds")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
