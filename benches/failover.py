"""One region of three fails under load and comes back, in five ways: `make failover`.

The release binary, three providers as processes of their own on loopback, streams at a fixed rate,
each timed from when it was due and never retried by its client. What every request saw is counted
second by second: the good ones, the failed ones and, apart from them, the streams that had begun.

It must never hide a bad second in an average: the plot shows exactly the values of the tables.

Writes docs/failover.md and docs/failover.svg; start reading in `main`.
"""

import argparse
import http.client
import json
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import failover_page
from failover_page import KILL, RETURN
from processes import KEY, MODEL, Server, add_arguments, build, free_port, machine, pinned, say

REGIONS = ["us-east", "eu-central", "ap-south"]
LOST = REGIONS[0]
#: Time between two reads of the gateway's metrics, in seconds.
LOOK = 0.05
#: A first token this much later than the usual one before the outage is slow, in milliseconds.
SLOW_MS = 100

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"
{providers}
[models."{model}"]
price = {{ input = "0.07", output = "0.25" }}
deployments = [{deployments}]

[policies.bench]
models = ["*"]

[[keys]]
name = "bench"
policy = "bench"
secret = "env:BENCH_KEY"
"""

PROVIDER = """
[providers.{region}]
protocol = "openai"
base_url = "http://127.0.0.1:{port}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "{region}"
"""


@dataclass(frozen=True)
class Load:
    """The requests to send, and for how long."""

    per_second: int = 200
    seconds: int = 55
    first_ms: int = 80
    frames: int = 12
    pace_ms: int = 60

    def arguments(self):
        return [word for name in ["per-second", "seconds", "first-ms", "frames", "pace-ms"]
                for word in (f"--{name}", str(getattr(self, name.replace("-", "_"))))]


# --- regions ----------------------------------------------------------------------------------


class Region:
    """A provider; `how` is the way it fails when it is lost."""

    def __init__(self, args, how, name, folder):
        self.how, self.port, self.log, self.core = how, free_port(), folder / f"{how}-{name}.log", args.load_core
        fault = "reset" if how == "reset" else "error"
        # With a short queue of connections, the system drops further ones while the process is stopped.
        backlog = "2" if how == "drop" else "4096"
        self.command = [args.rig, "mock", f"127.0.0.1:{self.port}", "--fault", fault, "--backlog", backlog]
        self.fillers = []
        self.server = self.start()

    def start(self):
        return Server(self.command, self.port, self.core, self.log)

    def lose(self):
        if self.how == "refuse":
            self.server.process.kill()
            self.server.process.wait()
        elif self.how in ("silent", "drop"):
            self.server.signal(signal.SIGSTOP)
            if self.how == "drop":
                self.fillers = [knock(self.port) for _ in range(16)]
        else:
            self.server.signal(signal.SIGUSR1)

    def bring_back(self):
        if self.how == "refuse":
            self.server = self.start()
        elif self.how in ("silent", "drop"):
            for connection in self.fillers:
                connection.close()
            self.server.signal(signal.SIGCONT)
        else:
            self.server.signal(signal.SIGUSR2)


def knock(port):
    """A connection begun and left in the system's queue."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


# --- one run ----------------------------------------------------------------------------------


@dataclass
class Run:
    """The result of one way of failing: a line for each request, and the breaker's states over time."""

    how: str
    requests: list = field(default_factory=list)
    #: (seconds, state of the lost region's breaker)
    states: list = field(default_factory=list)
    #: (seconds, attempts ended at the lost region so far)
    attempts: list = field(default_factory=list)


def run(args, how, load, folder):
    """One run of 55 seconds."""
    regions = []
    try:
        regions += (Region(args, how, name, folder) for name in REGIONS)
        config = folder / f"{how}.toml"
        port = free_port()
        config.write_text(CONFIG.format(
            port=port, model=MODEL,
            providers="".join(PROVIDER.format(region=name, port=region.port) for name, region in zip(REGIONS, regions)),
            deployments=", ".join(f'{{ provider = "{name}" }}' for name in REGIONS),
        ))
        with Server([args.tierway, "serve", "--config", config], port, args.gateway_core, folder / f"{how}.log") as gateway:
            return observe(args, how, load, gateway, regions[0])
    finally:
        for region in regions:
            region.server.stop()


def observe(args, how, load, gateway, lost):
    seen = Run(how)
    asking = subprocess.Popen(
        [args.rig, "timeline", f"127.0.0.1:{gateway.port}", "--key", KEY, *load.arguments()],
        stdout=subprocess.PIPE, text=True, preexec_fn=pinned(args.load_core),
    )
    try:
        begins = json.loads(asking.stdout.readline())["begins_unix"]
        watching = threading.Thread(target=watch, args=(gateway.port, begins, load.seconds, seen))
        watching.start()
        for due, act in [(KILL, lost.lose), (RETURN, lost.bring_back)]:
            time.sleep(max(0, begins + due - time.time()))
            act()
            say(f"{how}: {LOST} {'lost' if due == KILL else 'back'}")
        lines = [json.loads(line) for line in asking.stdout]
        watching.join()
        seen.requests = lines[:-1]
        return seen
    finally:
        asking.kill()
        asking.wait()


def watch(port, begins, seconds, seen):
    """Reads the gateway's metrics until the load ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    state_of = re.compile(rf'tierway_breaker_state{{deployment="{LOST}/[^"]*",state="(\w+)"}} 1\b')
    attempts_of = re.compile(rf'tierway_attempts_total{{deployment="{LOST}/[^"]*",reason="[^"]*"}} (\d+)')
    while (now := time.time() - begins) < seconds:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        found = state_of.search(text)
        seen.states.append((round(now, 3), found[1] if found else "closed"))
        seen.attempts.append((round(now, 3), sum(map(int, attempts_of.findall(text)))))
        time.sleep(LOOK)


# --- what it means ----------------------------------------------------------------------------


def quantile(values, share):
    values = sorted(values)
    return values[round((len(values) - 1) * share)] if values else None


def seconds_of(seen, load):
    """One row for each second, by when the requests in it were due."""
    rows, usual = [], usual_ms(seen)
    for second in range(load.seconds):
        due = [request for request in seen.requests if second <= request["due_s"] < second + 1]
        first = [request["first_ms"] for request in due if request["first_ms"] is not None]
        by_region = {name: sum(request["region"] == name for request in due) for name in REGIONS}
        states = [state for at, state in seen.states if second <= at < second + 1]
        rows.append({
            "second": second,
            "requests": len(due),
            "failed": count(due, "failed"),
            "cut": count(due, "cut"),
            "failed_then": count(ended_in(seen, second), "failed"),
            "cut_then": count(ended_in(seen, second), "cut"),
            "slow": [(request["due_s"], request["first_ms"]) for request in due if is_slow(request, usual)],
            "p50_ms": quantile(first, 0.5),
            "p99_ms": quantile(first, 0.99),
            "share": {name: number / max(1, sum(by_region.values())) for name, number in by_region.items()},
            "breaker": list(dict.fromkeys(states)),
        })
    return rows


def ended_in(seen, second):
    return [request for request in seen.requests if second <= request["due_s"] + request["end_ms"] / 1000 < second + 1]


def count(requests, outcome):
    return sum(request["outcome"] == outcome for request in requests)


def usual_ms(seen):
    """The median first token before the outage."""
    return statistics.median(request["first_ms"] for request in seen.requests
                             if request["due_s"] < KILL and request["first_ms"] is not None)


def is_slow(request, usual):
    return (request["first_ms"] is not None and request["first_ms"] > usual + SLOW_MS
            and request["due_s"] + request["first_ms"] / 1000 > KILL)


def facts_of(seen):
    """The summary of a run."""
    usual = usual_ms(seen)
    slow = [request for request in seen.requests if is_slow(request, usual)]
    # Counted from its answer: a probe may have waited since before the return.
    answered = [at for request in seen.requests if request["region"] == LOST and request["first_ms"] is not None
                and (at := request["due_s"] + request["first_ms"] / 1000) >= RETURN]
    outage = [request for request in seen.requests if KILL <= request["due_s"] < RETURN]
    tripped = [at for at, state in seen.states if at >= KILL and state != "closed"]
    return {
        "requests": len(seen.requests),
        "failed": count(seen.requests, "failed"),
        "cut": count(seen.requests, "cut"),
        "looked_complete": count(seen.requests, "passed off as whole"),
        "usual_ms": usual,
        "slow": len(slow),
        "slow_there": sum(request["region"] == LOST or int(request["attempts"] or 1) > 1 for request in slow),
        "slowest_ms": max((request["first_ms"] for request in slow), default=None),
        "last_slow_s": max(request["due_s"] for request in slow) - KILL if slow else None,
        "tripped_s": tripped[0] - KILL if tripped else None,
        "asked_back_s": min(answered) - RETURN if answered else None,
        "full_share_s": full_share(seen),
        "attempts_lost": attempts_between(seen, KILL, RETURN),
        "outage_p99_ms": quantile([request["first_ms"] for request in outage if request["first_ms"] is not None], 0.99),
        "outage_requests": len(outage),
        "outage_extra": sum(int(request["attempts"] or 1) - 1 for request in outage),
    }


def attempts_between(seen, begin, end):
    within = [number for at, number in seen.attempts if begin <= at < end]
    return within[-1] - within[0] if within else 0


def full_share(seen):
    """From its return until the region serves, over a second, at least 0.9 of a third of the requests."""
    for tenth in range(RETURN * 10, int(seen.requests[-1]["due_s"] * 10) - 10):
        begin = tenth / 10
        due = [request for request in seen.requests if begin <= request["due_s"] < begin + 1]
        if sum(request["region"] == LOST for request in due) >= 0.9 * len(due) / len(REGIONS):
            return begin - RETURN
    return None


# --- the whole run ----------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", nargs="+", choices=failover_page.WAYS, default=list(failover_page.WAYS),
                        help="which ways of failing; the page and the plot need them all")
    parser.add_argument("--figures", type=Path, help="write every request to this file, as JSON, or read them with --draw")
    parser.add_argument("--draw", action="store_true", help="run nothing: write the page and plot from --figures again")
    add_arguments(parser)
    args = parser.parse_args()
    load, about = Load(), machine()
    if args.draw:
        about, runs = read(args.figures)
    else:
        build(args)
        with tempfile.TemporaryDirectory(prefix="tierway-failover-") as folder:
            runs = all_runs(args, load, Path(folder))
        if args.figures:
            args.figures.write_text(json.dumps({"about": about, "runs": [vars(seen) for seen in runs]}))
    results = {seen.how: (facts_of(seen), seconds_of(seen, load)) for seen in runs}
    print(failover_page.facts_table(results))
    if set(results) == set(failover_page.WAYS):
        failover_page.write(args.docs, results, {seen.how: seen.states for seen in runs}, load, about)
    if any(facts["looked_complete"] for facts, _ in results.values()):
        raise SystemExit("a cut stream looked complete")


def all_runs(args, load, folder):
    """Runs three at a time: together they need less than one core of two."""
    runs = {}
    for batch in [args.how[:3], args.how[3:]]:
        threads = [threading.Thread(target=lambda how=how: runs.update({how: run(args, how, load, folder)}))
                   for how in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    missing = [how for how in args.how if how not in runs]
    if missing:
        raise SystemExit(f"no figures of: {', '.join(missing)}")
    return [runs[how] for how in args.how]


def read(path):
    results = json.loads(path.read_text())
    return results["about"], [Run(**seen) for seen in results["runs"]]


if __name__ == "__main__":
    main()
