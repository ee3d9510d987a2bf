"""Requests at the rates of a script, from clients that try again as the official ones do: `burst_load.py JSON`.

A source is a key with its rate in each phase. Its requests do not wait for each other. A request that is refused with
408, 409, 429 or 5xx, or whose connection fails, is sent again as by the official clients' defaults: twice at most, after
what Retry-After says where that is a minute at most, else after half a second, doubled each time up to 8 s, less up to a
quarter by chance. A source with `workers` instead of rates is hostile: each sends again as soon as it is answered, and
pauses a moment where that was no answer.

A line on stdout says that everything is ready; a line on stdin is the Unix time at which to begin; at the end stdout has a
line for each request. It must never drop one, and never wait for one before it sends the next.

Start reading in `main`.
"""

import asyncio
import gc
import json
import random
import sys
import time

from raw_client import RawClient, header

#: Seconds after which a client has given up one sending.
PATIENCE = 60
#: As the official clients.
MOST_RETRIES, FIRST_PAUSE, MOST_PAUSE, MOST_STATED = 2, 0.5, 8.0, 60
#: How long a hostile client pauses that was refused.
HOSTILE_PAUSE = 0.1


def is_retried(status):
    return status in (0, 408, 409, 429) or status >= 500


def pause_before(number, head):
    """Seconds before retry `number`, from 0."""
    stated = header(head, "retry-after-ms")
    stated = float(stated) / 1000 if stated else float(header(head, "retry-after") or 0)
    if 0 < stated <= MOST_STATED:
        return stated
    return min(FIRST_PAUSE * 2.0 ** number, MOST_PAUSE) * (1 - 0.25 * random.random())


class Source:
    """One key's requests."""

    def __init__(self, load, source):
        self.load, self.source = load, source
        self.client = RawClient(load["port"], source["key"])
        self.seen, self.tasks = [], []

    async def run(self, begins):
        if "workers" in self.source:
            first, last = self.source["during"]
            self.tasks = [asyncio.create_task(self.hostile(begins, first, last)) for _ in range(self.source["workers"])]
        for due in self.dues():
            await asyncio.sleep(max(0, begins + due - time.time()))
            self.tasks.append(asyncio.create_task(self.one(begins, due)))
        await asyncio.gather(*self.tasks)

    def dues(self):
        """When each request is due, in seconds from the beginning: evenly, but for chance within each one's turn."""
        chance, dues, begun = random.Random(self.source["name"]), [], 0
        for seconds, rate in zip(self.load["phases"], self.source.get("rates", [])):
            count = round(seconds * rate)
            dues += [begun + (number + chance.random()) / rate for number in range(count)]
            begun += seconds
        return sorted(dues)

    async def hostile(self, begins, first, last):
        await asyncio.sleep(max(0, begins + first + random.random() - time.time()))
        while time.time() < begins + last:
            seen = await self.one(begins, time.time() - begins, retries=0)
            await asyncio.sleep(HOSTILE_PAUSE if seen["statuses"][-1] != 200 else 0)

    async def one(self, begins, due, retries=MOST_RETRIES):
        seen = {"source": self.source["name"], "due_s": round(due, 4), "statuses": [], "wrong": None}
        members = {"model": self.source["model"], "user": self.source.get("user", self.source["name"]),
                   "messages": [{"role": "user", "content": "Say something."}]}
        for number in range(retries + 1):
            seen["sent_s"] = round(time.time() - begins, 4)
            status, head, text = await self.client.exchange(PATIENCE, **members)
            seen["statuses"].append(status)
            seen["wrong"] = seen["wrong"] or what_is_wrong(status, head, text)
            if not is_retried(status) or header(head, "x-should-retry") == "false" or number == retries:
                break
            await asyncio.sleep(pause_before(number, head))
        seen["took_ms"] = round((time.time() - begins - due) * 1000, 1)
        self.seen.append(seen)
        return seen


def what_is_wrong(status, head, text):
    """What a client should not read."""
    if status == 429 and not (header(head, "retry-after") and header(head, "retry-after-ms")):
        return f"429 without both forms of Retry-After: {head!r}"[:300]
    if (status == 429 and '"slow_down"' not in text) or (status == 200 and '"Hello"' not in text) or status not in (200, 429):
        return f"{status} {text}"[:300]
    return None


async def main():
    load = json.loads(sys.argv[1])
    random.seed(load["seed"])
    sources = [Source(load, source) for source in load["sources"]]
    gc.freeze()
    print("ready", flush=True)
    begins = float(sys.stdin.readline())
    await asyncio.gather(*(source.run(begins) for source in sources))
    for source in sources:
        for seen in source.seen:
            print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main())
