"""Thousands of deliberately slow or greedy clients, beside normal requests at a fixed rate: `make slow`.

The release binary on a core of its own; normal requests and slow clients share the other with the
provider. The same honest load goes directly to the provider at the same time: its latency there
is caused by the machine, not by the gateway.

It must never drop a failed request: they are counted, shown, and make the command fail.

Writes docs/slow-clients.md; start reading in `main`.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from processes import ATTACKER_KEY, KEY, MODEL, Server, add_arguments, build, free_port, machine, need, pinned, say, tool

RATE = 100
SECONDS = 6
#: How long each attack lasts beside the normal requests.
ATTACK_SECONDS = 60
#: More than the gateway takes.
MAX_CONNECTIONS = 6000
IDLE_CONNECTIONS = 8000
#: Time for slowhttptest to open its connections, in seconds.
RAMP = 5
#: Longest time that gateway and provider may be busy with the new connections before the normal requests are timed.
SETTLE = 20

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"
max_connections = {max_connections}
max_body = "4MiB"
max_in_flight_bytes = "128MiB"

[providers.one]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"

[models."{model}"]
price = {{ input = "0.07", output = "0.25" }}
deployments = [{{ provider = "one" }}]

[policies.bench]
models = ["*"]

[[keys]]
name = "bench"
policy = "bench"
secret = "env:BENCH_KEY"

[[keys]]
name = "attacker"
policy = "bench"
secret = "env:BENCH_ATTACKER"
"""

#: What the slow clients do: our own, then slowhttptest's modes.
MANNERS = {
    "idle": "connect, send nothing",
    "head": "a head, one byte a second",
    "body": "a good key, a body of which one byte comes a second",
    "read": "a good key, a stream of 1 MB that is never read",
}
#: What an attacker does, with so many connections.
ATTACKS = {
    "upload": ("40 uploads of 4 MiB but for their end, then a byte in 4 s", 40),
    "unread": ("40 answers of 8 MB that are never read", 40),
    "flood": ("no key, as fast as 200 connections are refused", 200),
    "idle": (f"{IDLE_CONNECTIONS:,} connections that send nothing, of {MAX_CONNECTIONS:,} possible", IDLE_CONNECTIONS),
}
MODES = {
    "-H": "slowhttptest -H: heads, a line every 2 s",
    "-B": "slowhttptest -B: bodies, a piece every 2 s",
}


# --- slow clients -----------------------------------------------------------------------------


@contextmanager
def ours(args, port, manner, connections, result):
    """Our own slow clients: one whose connection is closed reconnects."""
    command = [args.rig, "slow", f"127.0.0.1:{port}", "--key", ATTACKER_KEY, "--manner", manner, "--connections", str(connections)]
    clients = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=pinned(args.load_core),
    )
    lines = []
    reading = threading.Thread(target=lambda: lines.extend(map(json.loads, clients.stdout)))
    reading.start()
    try:
        deadline = time.monotonic() + 30
        while not lines and time.monotonic() < deadline:
            time.sleep(0.1)
        yield
        clients.stdin.close()
        clients.wait(timeout=10)
    finally:
        clients.kill()
        clients.wait()
        reading.join()
    result |= {"open": max(line["open"] for line in lines), "let_go": lines[-1]["let_go"]}


@contextmanager
def slowhttptest(args, port, mode, result):
    """Debian's slowhttptest: it opens each connection once, and stops when all are closed."""
    shape = ["-c", args.connections, "-r", 2500, "-i", 2, "-l", SECONDS + SETTLE + RAMP, "-p", 5]
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    clients = subprocess.Popen(
        [str(part) for part in [tool("slowhttptest"), mode, *shape, "-u", url, "-v", "1"]],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=pinned(args.load_core),
    )
    try:
        time.sleep(RAMP)
        result["open"] = established(port, clients.pid)
        yield
        result["open"] = max(result["open"], established(port, clients.pid))
    finally:
        clients.kill()
        clients.wait()


def established(port, pid):
    """The number of established connections of that process to `port`."""
    said = subprocess.run(["ss", "-Htnp", "state", "established", f"dport = :{port}"], capture_output=True, text=True).stdout
    return sum(f"pid={pid}," in line for line in said.splitlines())


# --- normal requests --------------------------------------------------------------------------


def normal_requests(args, gateway, mock, seconds):
    """Three loads at once: on kept connections, on a fresh one each, and without the gateway."""
    ways = {"kept": (gateway, []), "fresh": (gateway, ["--fresh"]), "direct": (mock, [])}
    running = {
        name: subprocess.Popen(
            [str(args.rig), "open", f"127.0.0.1:{server.port}", "--key", KEY, "--per-second", str(RATE),
             "--seconds", str(seconds), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pinned(args.load_core),
        )
        for name, (server, more) in ways.items()
    }
    said = {}
    for name, load in running.items():
        out, error = load.communicate()
        # No connection was accepted at all.
        said[name] = json.loads(out) if out else {"requests": RATE * seconds, "failed": RATE * seconds, "failure": error}
    return said


def phase(args, gateway, mock, name, clients, seconds=SECONDS):
    result = {"seconds": seconds}
    with clients(result):
        # An attack is not waited for.
        result["settled_s"] = settle(gateway, mock) if seconds == SECONDS else 0.0
        seen = normal_requests(args, gateway, mock, seconds)
        result |= {"name": name, "rss_mib": gateway.rss_kib() / 1024, **seen}
    say(f"{name}: {sum(seen[way]['failed'] for way in seen)} failed")
    return result


def settle(*servers):
    """Waits until gateway and provider are no longer busy with the new connections: until every buffer is full."""
    begun = time.monotonic()
    while True:
        before = sum(server.cpu_seconds() for server in servers)
        waited = time.monotonic() - begun
        time.sleep(0.5)
        if waited > SETTLE or sum(server.cpu_seconds() for server in servers) - before < 0.15:
            return waited


@contextmanager
def no_clients(_):
    yield


def run(args, folder):
    mock_port, port = free_port(), free_port()
    config = folder / "tierway.toml"
    config.write_text(CONFIG.format(port=port, mock=mock_port, model=MODEL, max_connections=MAX_CONNECTIONS))
    with (
        Server([args.rig, "mock", f"127.0.0.1:{mock_port}"], mock_port, args.load_core, folder / "mock.log") as mock,
        Server([args.tierway, "serve", "--config", config], port, args.gateway_core, folder / "tierway.log") as gateway,
    ):
        phases = [phase(args, gateway, mock, "no slow clients", no_clients)]
        for manner, name in MANNERS.items():
            clients = partial(ours, args, port, manner, args.connections)
            phases.append(phase(args, gateway, mock, name, clients))
        for mode, name in MODES.items():
            phases.append(phase(args, gateway, mock, name, lambda result, mode=mode: slowhttptest(args, port, mode, result)))
        for manner, (name, connections) in ATTACKS.items():
            clients = partial(ours, args, port, manner, connections)
            phases.append(phase(args, gateway, mock, f"**attack**: {name}", clients, args.attack_seconds))
        phases.append(phase(args, gateway, mock, "no slow clients any more", no_clients))
        return phases


# --- the page ---------------------------------------------------------------------------------


def table(phases):
    lines = ["| the slow ones | s | open at once | closed meanwhile | busy with them, s | failed | kept: p50, µs | p99 | fresh: p50 | p99 | direct: p50 | p99 | MiB |",
             "|---" * 13 + "|"]
    for result in phases:
        ways = [result["kept"], result["fresh"]]
        cells = [result["name"], shown(result["seconds"]), shown(result.get("open")), shown(result.get("let_go")), f"{result['settled_s']:.1f}", f"**{sum(way['failed'] for way in ways)}**"]
        for way in [*ways, result["direct"]]:
            cells += [shown(way.get("p50_us")), shown(way.get("p99_us"))]
        lines.append("| " + " | ".join([*cells, f"{result['rss_mib']:.0f}"]) + " |")
    return "\n".join(lines)


def shown(number):
    return "–" if number is None else f"{number:,}"


def page(args, phases, about):
    total = sum(result[way]["requests"] for result in phases for way in ("kept", "fresh"))
    return f"""# Slow clients

Written by `make slow`; nothing here is written by hand. {args.connections:,} deliberately slow clients, each in one of
{len(MANNERS) + len(MODES)} ways, then {len(ATTACKS)} attacks for {args.attack_seconds} s each, and beside them {2 * RATE} normal requests a second, {total:,} in all, timed from when each was due and
never retried.

{table(phases)}

- **kept**: {RATE} requests a second on 64 connections opened before; **fresh**: as many, each on a connection of
  its own, like a new client. **direct**: as many at the same time without the gateway,
  directly to the provider: the load and the slow clients share one core with it, and this is the cost of that.
- **attack**: with a key of its own, or with none, an attacker takes what it can of memory, connections and time. The
  gateway runs with `max_body = "4MiB"`, `max_in_flight_bytes = "128MiB"` and `max_connections = {MAX_CONNECTIONS}`: the
  uploads and the answers are more than all of that memory, the idle connections more than all that there may be.
- **s**: for how many seconds the normal requests were sent.
- **open at once**: how many of the slow connections were open at a time. **closed**: how often the gateway closed
  one; ours reconnect a second later, those of the flood at once. `slowhttptest` has no key, so its bodies are refused and what it has
  open is fewer.
- **busy with them**: how long gateway and provider were busy after all had connected: thousands
  of streams are relayed until every buffer between provider and client is full. A request in that time queues
  behind them, as behind any load that fills a core; the normal requests are timed after it, at most {SETTLE} s later.
- **MiB**: resident memory of the gateway at the end of each manner, the same process throughout.

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The gateway has core {args.gateway_core}, everything
else core {args.load_core}; all over loopback, without TLS.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--attack-seconds", type=int, default=ATTACK_SECONDS)
    parser.add_argument("--figures", type=Path, help="write every figure to this file, as JSON")
    add_arguments(parser)
    args = parser.parse_args()
    need("slowhttptest", "ss", packages="slowhttptest iproute2")
    build(args)
    about = machine()
    with tempfile.TemporaryDirectory(prefix="tierway-slow-") as folder:
        phases = run(args, Path(folder))
    if args.figures:
        args.figures.write_text(json.dumps({"about": about, "phases": phases}, indent=1))
    args.docs.mkdir(parents=True, exist_ok=True)
    (args.docs / "slow-clients.md").write_text(page(args, phases, about))
    print(table(phases))
    failures = {result[way]["failure"] for result in phases for way in ("kept", "fresh") if result[way]["failed"]}
    if failures:
        raise SystemExit("normal requests failed: " + "; ".join(sorted(failures))[:2000])


if __name__ == "__main__":
    main()
