"""One row of `make attacks`: keys that provoke one failure, as fast as their limits allow, beside keys that do not:
`attack_row.py JSON`.

Providers, attackers and honest clients are in this process, on raw sockets; the gateway is a process of its own.
One of five honest requests is slow. It must never count a request as served that got less than a whole answer.

Start reading in `main`.
"""

import asyncio
import json
import re
import sys
import time
import urllib.request
from pathlib import Path

from attack_provider import KINDS, Provider
from processes import SECRETS, Server, free_port
from outage_stage import CORES
from raw_client import RawClient

#: Seconds after which a client has given up.
PATIENCE = 60
#: Requests a minute and at once that an attacking key may make.
PER_MINUTE, AT_ONCE = 1200, 16
#: How long an attacker that was refused for its limits waits.
PAUSE_S = 0.05
#: Every so many honest requests one is slow.
SLOW_EVERY = 5
#: Seconds after which nothing is left of what the attackers met while they were the only ones.
SETTLED_S = 0.5

HEAD = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"

[policies.all]
models = ["*"]

[teams.attackers]
"""


# --- the clients ------------------------------------------------------------------------------


class Client(RawClient):
    """Whole or streamed requests, some of which ask for a failure."""

    async def ask(self, stream, user, timeout):
        """Status and body of one request; status 0 where the connection failed or `timeout` passed."""
        messages = [{"role": "user", "content": "Say something."}]
        status, _, text = await self.exchange(timeout, model="small", stream=stream, user=user, messages=messages)
        return status, text


def is_served(status, text, stream):
    if status != 200:
        return False
    if stream:
        return "Hel" in text and '"stop"' in text and text.rstrip().endswith("[DONE]") and '"error"' not in text
    return '"Hello"' in text and '"stop"' in text


class Attack:
    """The failing keys. Each makes requests one after the other, `AT_ONCE` at a time, or `per_second` together."""

    def __init__(self, row, port, keys):
        self.kind = KINDS[row["kind"]]
        self.user = f"fail:{row['kind']}"
        self.clients = [Client(port, key) for key in keys]
        self.per_second = row["attacks_per_second"]
        self.sent, self.read = 0, {}
        self.tasks = set()

    def begin(self):
        if self.per_second:
            self.spawn(self.paced())
            return
        for client in self.clients:
            for number in range(AT_ONCE):
                self.spawn(self.unpaced(client, number))

    def end(self):
        for task in self.tasks:
            task.cancel()

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def paced(self):
        number = 0
        while True:
            self.spawn(self.one(self.clients[number % len(self.clients)], number // len(self.clients)))
            number += 1
            await asyncio.sleep(1 / self.per_second)

    async def unpaced(self, client, number):
        while True:
            status = await self.one(client, number)
            number += 1
            # A reply of the gateway that costs nothing is not asked for again at once.
            await asyncio.sleep(PAUSE_S if status in (0, 429) else 0)

    async def one(self, client, number):
        self.sent += 1
        status, _ = await client.ask(number % 2 == 1, self.user, self.kind.leaves_after or PATIENCE)
        self.read[status] = self.read.get(status, 0) + 1
        return status


class Honest:
    """Keys whose requests are all to be served."""

    def __init__(self, port, keys):
        self.clients = [Client(port, key) for key in keys]
        self.sent, self.took, self.unserved = 0, [], []
        self.tasks = []
        self.begun = time.perf_counter()

    async def phase(self, seconds, per_second, burst):
        begun = time.perf_counter()
        for _ in range(burst):
            self.send(slow=True)
        number = 0
        while (due := begun + number / per_second) < begun + seconds:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            self.send(slow=number % SLOW_EVERY == SLOW_EVERY - 1)
            number += 1

    def send(self, slow):
        number = self.sent
        self.sent += 1
        self.tasks.append(asyncio.create_task(self.one(number, slow)))

    async def one(self, number, slow):
        client, stream = self.clients[number % len(self.clients)], number // len(self.clients) % 2 == 1
        begun = time.perf_counter()
        status, text = await client.ask(stream, "slow" if slow else "", PATIENCE)
        ended = time.perf_counter()
        if is_served(status, text, stream):
            self.took.append((slow, ended - begun))
        else:
            what = f"{'slow ' * slow}{'stream' if stream else 'whole'}"
            self.unserved.append(f"{begun - self.begun:.2f} s, after {ended - begun:.2f} s, {what}: {status} {text[-300:]}")


# --- the row ----------------------------------------------------------------------------------


def config(row, ports, port):
    lines = [HEAD.format(port=port)]
    for number, provider in enumerate(ports):
        lines.append(f'[providers.r{number}]\nprotocol = "openai"\nbase_url = "http://127.0.0.1:{provider}/v1"\n'
                     f'credential = "env:ATTACK_CREDENTIAL"\nregion = "region-{number}"\n')
    deployments = ", ".join(f'{{ provider = "r{number}" }}' for number in range(len(ports)))
    lines.append(f"[models.small]\ndeployments = [{deployments}]\n")
    secrets = {"ATTACK_CREDENTIAL": "sk-provider"}
    for number in range(row["attackers"] + 2):
        name, secret = f"key-{number}", f"sk-attack-{number:04}-0123456789abcdef0123456789abcdef"
        secrets[f"ATTACK_KEY_{number}"] = secret
        attacks = number < row["attackers"]
        team = 'team = "attackers"\n' if attacks and row["one_team"] else ""
        limits = f"requests_per_minute = {PER_MINUTE}\nmax_concurrent = {AT_ONCE}\n" if attacks else ""
        lines.append(f'[[keys]]\nname = "{name}"\npolicy = "all"\nsecret = "env:ATTACK_KEY_{number}"\n{team}{limits}')
    SECRETS.update(secrets)
    return "\n".join(lines), [secrets[f"ATTACK_KEY_{number}"] for number in range(row["attackers"] + 2)]


def closures(port):
    """How often a deployment was closed to all, so far."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {SECRETS['BENCH_ADMIN']}"})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        metrics = answer.read().decode()
    changes = re.findall(r'^tierway_breaker_transitions_total\{.*to="(?:open|resting)".*\} (\d+)$', metrics, re.MULTILINE)
    return sum(map(int, changes))


async def run(row):
    providers = [Provider(fails=row["everywhere"] or number == 0) for number in range(row["regions"])]
    ports = [await provider.start() for provider in providers]
    port = free_port()
    text, keys = config(row, ports, port)
    path = Path(row["folder"]) / f"{row['name']}.toml"
    path.write_text(text)
    loop = asyncio.get_running_loop()
    start = lambda: Server([row["tierway"], "serve", "--config", path], port, CORES, path.with_suffix(".log"), store="memory:")
    server = await loop.run_in_executor(None, start)
    try:
        attack, honest = Attack(row, port, keys[:row["attackers"]]), Honest(port, keys[row["attackers"]:])
        attack.begin()
        honest.begun = time.perf_counter()
        before = None
        for seconds, per_second, burst in row["phases"]:
            if not per_second:
                await asyncio.sleep(seconds)
                continue
            if before is None:
                # What the attackers met while they were the only ones counts for them alone.
                await honest.phase(SETTLED_S, per_second, burst)
                before, seconds, burst = await loop.run_in_executor(None, closures, port), seconds - SETTLED_S, 0
            await honest.phase(seconds, per_second, burst)
        await asyncio.gather(*honest.tasks)
        closed = await loop.run_in_executor(None, closures, port) - before
        attack.end()
    finally:
        await loop.run_in_executor(None, server.stop)
    quick = sorted(took for slow, took in honest.took if not slow)
    slow = sorted(took for slow, took in honest.took if slow)
    return {"closed": closed, "sent": honest.sent, "served": len(honest.took), "unserved": honest.unserved[:5], "attacks": attack.sent, "read": attack.read,
            "quick_s": quick, "slow_s": slow}


def main():
    row = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(run(row))))


if __name__ == "__main__":
    main()
