"""Tierway compared with nginx, HAProxy and a minimal proxy, in one interleaved run: `make bench`.

Every measure is taken of every contender in turn, round after round, so that a machine which is slow
for a minute is slow for all of them. The gateway has one core; provider and load share the other.
What a request costs is the gateway's own processor time as the kernel accounts it, which drifts less
than wall time. Read the ratios to nginx.

It must never ignore a failed request: an answer other than the requested one ends the run.

Writes docs/performance.md and its plots from the medians; start reading in `main`.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import growth
import money
import page
import syscalls
from contenders import TIERWAY, certificate, contenders
from loads import Loads
from processes import LIMITED_KEY, Server, add_arguments, build, free_port, machine, need, say, tool


@dataclass(frozen=True)
class Lengths:
    """How long each measure takes, in seconds or counts."""

    rounds: int
    warm_up: float
    closed: int
    slow: float
    fast: float
    streams: int
    stream_times: int
    held: int
    large: int
    traced: int
    refused: int
    open_streams_rounds: int
    growth_rounds: int
    growth: int


FULL = Lengths(
    rounds=3, warm_up=2, closed=5, slow=10, fast=5, streams=200, stream_times=5, held=2000, large=4, traced=2,
    refused=3,
    open_streams_rounds=2, growth_rounds=3, growth=2,
)
QUICK = Lengths(
    rounds=2, warm_up=1, closed=2, slow=2, fast=2, streams=200, stream_times=1, held=1000, large=2, traced=1,
    refused=1,
    open_streams_rounds=1, growth_rounds=1, growth=1,
)


# --- measures ---------------------------------------------------------------------------------


def measures(loads):
    """Every measure: a function of a port and the gateway behind it, or `None`, that returns its figures."""
    lengths = loads.lengths

    def costed(server, work):
        before = server.cpu_seconds() if server else 0
        count, result = work()
        spent = (server.cpu_seconds() - before) * 1e6 / count if server else None
        return spent, result

    def whole(port, server):
        cpu, rate = costed(server, lambda: loads.wrk(port, lengths.closed, 64))
        return {"whole_cpu_us": cpu, "whole_per_second": rate}

    def at_rate(name, per_second, seconds):
        def measure(port, server):
            def work():
                said = loads.open(port, per_second, seconds)
                return said["requests"], said

            cpu, said = costed(server, work)
            return {f"{name}_cpu_us": cpu, f"{name}_p50_us": said["p50_us"], f"{name}_p99_us": said["p99_us"]}

        return measure

    def streams(port, server):
        def work():
            said = loads.streams(port)
            return said["frames"], said

        cpu, said = costed(server, work)
        return {"frame_cpu_us": cpu, "first_token_p50_us": said["first_token_p50_us"],
                "first_token_p99_us": said["first_token_p99_us"]}

    def closed(name, seconds, connections, **how):
        def measure(port, server):
            return {name: costed(server, lambda: loads.wrk(port, seconds, connections, **how))[0]} if server else {}

        return measure

    def limited(port, server):
        """Only Tierway has limits."""
        if not server or "serve" not in server.process.args:
            return {}
        return closed("limited_cpu_us", lengths.refused, 64, key=LIMITED_KEY, refused=True, but=1)(port, server)

    return {
        "whole answers": whole,
        "200 a second": at_rate("slow", 200, lengths.slow),
        "2,000 a second": at_rate("fast", 2000, lengths.fast),
        "streams": streams,
        "100 KB of context": closed("context_cpu_us", lengths.large, 32, filler=100_000),
        "1 MiB bodies": closed("large_cpu_us", lengths.large, 8, filler=1 << 20),
        "embeddings": closed("embedding_cpu_us", lengths.large, 32, embeds=True),
        "a connection for each": closed("fresh_cpu_us", lengths.large, 16, fresh=True),
        "refusals": closed("refused_cpu_us", lengths.refused, 64, key="sk-wrong", refused=True),
        "limits": limited,
    }


def of_a_fresh_process(contender, loads):
    """Measures that need a process that has served nothing yet."""
    server = contender.start()
    try:
        time.sleep(0.3)
        idle = server.rss_kib()
        with loads.holding(contender.port, loads.lengths.held):
            held = server.rss_kib()
        return {"ready_ms": server.ready_ms, "idle_mib": idle / 1024,
                "stream_kib": (held - idle) / loads.lengths.held}
    finally:
        server.stop()


def run(args, folder):
    """Everything that is measured: the contenders, many open streams, growth, money."""
    lengths = QUICK if args.quick else FULL
    loads = Loads(args, folder, lengths)
    mock_port = free_port()
    with Server([args.rig, "mock", f"127.0.0.1:{mock_port}"], mock_port, args.load_core, folder / "mock.log"):
        certificate(folder)
        gateways = contenders(args, folder, mock_port)
        figures = interleaved(gateways, loads, mock_port)
        for name, found in over_tls(contenders(args, folder, mock_port, tls=True), loads).items():
            figures[name].update(found)
        for gateway in gateways:
            with gateway.start() as server:
                figures[gateway.name]["syscalls"] = [syscalls.per_request(server, loads)]
        open_streams = growth.many_streams(args, folder, loads, contenders)
        grown = growth.growth(args, folder, loads, mock_port)
        account = money.money(args, folder, loads, mock_port, TIERWAY)
    return {"figures": figures, "open_streams": open_streams, "growth": grown, "money": account}, lengths


def interleaved(gateways, loads, mock_port):
    """The figures: contender, then measure, to its values, one per round."""
    lengths = loads.lengths
    figures = {name: {} for name in ["direct", *(gateway.name for gateway in gateways)]}

    def note(name, values):
        for measure, value in values.items():
            if value is not None:
                figures[name].setdefault(measure, []).append(value)

    servers = {}
    try:
        for number in range(lengths.rounds):
            for gateway in gateways:
                note(gateway.name, of_a_fresh_process(gateway, loads))
            say(f"round {number + 1}: memory")
        servers.update((gateway.name, gateway.start()) for gateway in gateways)
        ports = {"direct": mock_port, **{gateway.name: gateway.port for gateway in gateways}}
        for name, port in ports.items():
            loads.wrk(port, lengths.warm_up, 64)
        for number in range(lengths.rounds):
            for label, measure in measures(loads).items():
                for name, port in ports.items():
                    note(name, measure(port, servers.get(name)))
                say(f"round {number + 1}: {label}")
    finally:
        for server in servers.values():
            server.stop()
    for gateway in gateways:
        note(gateway.name, {"binary_mib": os.path.getsize(gateway.binary) / (1 << 20)})
    return figures


def over_tls(gateways, loads):
    """The cost of a whole answer over TLS, by contender."""
    found = {gateway.name.removesuffix(", TLS"): {"tls_cpu_us": []} for gateway in gateways}
    for _ in range(loads.lengths.rounds):
        for gateway in gateways:
            with gateway.start() as server:
                loads.wrk(gateway.port, 1, 64, tls=True)
                before = server.cpu_seconds()
                requests, _ = loads.wrk(gateway.port, loads.lengths.closed, 64, tls=True)
                spent = (server.cpu_seconds() - before) * 1e6 / requests
                found[gateway.name.removesuffix(", TLS")]["tls_cpu_us"].append(spent)
    say("over TLS")
    return found


# --- the whole run ----------------------------------------------------------------------------


def about_this(args):
    nginx = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True).stderr
    haproxy = subprocess.run([tool("haproxy"), "-v"], capture_output=True, text=True).stdout
    return {**machine(), "nginx": nginx.strip().rpartition("/")[2], "haproxy": haproxy.split()[2], "gateway_core": args.gateway_core,
            "load_core": args.load_core, "quick": args.quick}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer rounds: a quick check, not figures")
    parser.add_argument("--figures", type=Path, help="write every value of every round to this file, as JSON")
    parser.add_argument("--before", type=Path, help="another build of Tierway, compared in the same run")
    add_arguments(parser)
    args = parser.parse_args()
    need("wrk", "nginx", "haproxy", "strace", packages="wrk nginx-light haproxy strace")
    build(args)
    about = about_this(args)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tierway-bench-") as folder:
        os.chmod(folder, 0o755)
        seen, lengths = run(args, Path(folder))
    about["minutes"] = (time.monotonic() - begun) / 60
    if args.figures:
        args.figures.write_text(json.dumps({"about": about, **seen}, indent=1))
    page.write(args.docs, seen, lengths, about)
    print(page.table(seen["figures"]))


if __name__ == "__main__":
    main()
