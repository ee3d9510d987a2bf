"""Providers of a fixed capacity, one at each name: `burst_provider.py NAME=SLOTS... --mean-ms N`.

A provider answers so many requests at once; what comes beyond them waits in its own queue, first come, first served. An
answer takes from half to one and a half times the mean. A request whose `user` is `fail` is answered 500 at once. One line
on stdout has the ports; for each line on stdin another one has what each provider has seen.

It must never refuse or drop a request that does not ask for it: overload shows as slowness, as at a model server.

Start reading in `FixedProvider.answer`.
"""

import argparse
import asyncio
import json
import random
import sys

from attack_provider import send
from raw_client import LIMIT


class FixedProvider:
    """One provider, and what it has seen: the most requests at once, waiting ones included, and answers by key."""

    def __init__(self, slots, mean_ms, seed):
        self.slots, self.mean_s, self.random = asyncio.Semaphore(slots), mean_ms / 1000, random.Random(seed)
        self.present, self.most, self.answered = 0, 0, {}

    async def start(self):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=LIMIT, backlog=1024)
        return server.sockets[0].getsockname()[1]

    async def connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = (line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                asked = json.loads(await reader.readexactly(int(next(lengths))))
                self.present += 1
                self.most = max(self.most, self.present)
                try:
                    await self.answer(writer, asked)
                finally:
                    self.present -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, writer, asked):
        user = asked["user"]
        if user == "fail":
            await send(writer, 500, {"error": {"message": "This request fails.", "type": "server_error", "code": None}})
            return
        async with self.slots:
            await asyncio.sleep(self.mean_s * self.random.uniform(0.5, 1.5))
        self.answered[user] = self.answered.get(user, 0) + 1
        message = {"role": "assistant", "content": "Hello"}
        await send(writer, 200, {
            "id": "x", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("providers", nargs="+")
    parser.add_argument("--mean-ms", type=int, required=True)
    args = parser.parse_args()
    providers = {}
    for seed, written in enumerate(args.providers):
        name, _, slots = written.partition("=")
        providers[name] = FixedProvider(int(slots), args.mean_ms, seed)
    print(json.dumps({name: await provider.start() for name, provider in providers.items()}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        seen = {name: {"most": one.most, "answered": dict(one.answered)} for name, one in providers.items()}
        for one in providers.values():
            one.most = one.present
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
