"""Every case through the gateway, over real sockets, cut in every way that is asked for."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from case import Case
from client import PATHS, Client
from gateway import KEY, Gateway
from verdict import Got

# More than the machine has cores for makes each so slow that its time runs out; those that only wait cost nothing.
AT_ONCE, HELD_AT_ONCE = 4, 32


@dataclass
class Tried:
    """One request through the gateway."""

    case: Case
    mode: str
    plan: str
    got: Got
    request_id: str

    @property
    def expected(self) -> str:
        return self.case.verdicts(self.mode).get("tierway", "missing")

    @property
    def verdict(self) -> str:
        return self.got.verdict(self.case.answer)

    @property
    def fails(self) -> bool:
        # A stream's error is told in its place: before its first token by a status, after it inside.
        return self.verdict != self.expected


def plans(case: Case, places: int | None, seed: int = 1) -> list[str]:
    """How a case's bytes are cut: not at all, at every byte, and in two at so many places (`None`: at every place)."""
    length = len(case.wire)
    if case.large:
        return ["whole"]
    if case.held:
        return ["whole", "bytes"]
    at = range(1, length)
    if places is not None and length > places:
        # Every byte is a place in some run: the step is odd, and the start depends on the name and the seed.
        step = length // max(places, 1) | 1
        at = range(1 + (sum(case.name.encode()) + seed) % step, length, step) if places else ()
    return ["whole", "bytes", *(f"cut:{place}" for place in at)]


def run(gateway: Gateway, wanted: Iterable[tuple[Case, str, str]]) -> list[Tried]:
    """Tries each (case, mode, plan)."""
    return asyncio.run(_run(gateway, list(wanted)))


async def _run(gateway: Gateway, wanted: list[tuple[Case, str, str]]) -> list[Tried]:
    results = []

    async def worker(waiting: Iterable[tuple[Case, str, str]]) -> None:
        client = Client(gateway.url)
        for case, mode, plan in waiting:
            body, headers = case.body(mode, plan), case.headers(KEY)
            answer = await client.post(PATHS[case.endpoint], headers, body, case.request.get("half_close", False))
            got = answer.got(mode, case.asks_usage(mode), case.n(mode))
            results.append(Tried(case, mode, plan, got, answer.headers.get("x-request-id", "")))
        client.close()

    # A debug build reads many MiB for so long that the time of others would run out.
    await worker(each for each in wanted if each[0].large)
    held = iter([each for each in wanted if each[0].held])
    others = iter([each for each in wanted if not each[0].held and not each[0].large])
    await asyncio.gather(*(worker(held) for _ in range(HELD_AT_ONCE)), *(worker(others) for _ in range(AT_ONCE)))
    return results
