"""Tierway compared with nginx and a minimal proxy, in one interleaved run: `make bench`.

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
from loads import Loads
from processes import KEY, MODEL, Server, add_arguments, build, free_port, machine, need, say, tool


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
    refused: int
    open_streams_rounds: int
    growth_rounds: int
    growth: int


FULL = Lengths(
    rounds=3, warm_up=2, closed=5, slow=10, fast=5, streams=200, stream_times=5, held=2000, large=4, refused=3,
    open_streams_rounds=2, growth_rounds=3, growth=2,
)
QUICK = Lengths(
    rounds=2, warm_up=1, closed=2, slow=2, fast=2, streams=200, stream_times=1, held=1000, large=2, refused=1,
    open_streams_rounds=1, growth_rounds=1, growth=1,
)


class Contender:
    """A server under test: how it is started, on which port it listens."""

    def __init__(self, name, command, port, binary, folder, core):
        self.name, self.command, self.port, self.binary, self.core = name, command, port, binary, core
        self.log = folder / f"{name}.log"

    def start(self):
        return Server(self.command, self.port, self.core, self.log)


# --- contenders -------------------------------------------------------------------------------

NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  scgi_temp_path {folder}/s; uwsgi_temp_path {folder}/u;
  keepalive_requests 1000000000; map_hash_bucket_size 256;
  client_max_body_size 32m;
  map $http_authorization $refused {{ default 1; "Bearer {key}" 0; }}
  upstream provider {{ server 127.0.0.1:{mock}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      if ($refused) {{ return 401 '{{"error":{{"message":"refused"}}}}'; }}
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""

# Every feature on: the key has a rate, a token and a concurrency limit, two deployments are balanced,
# breakers count, and every request is logged and counted.
TIERWAY = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"

[providers.one]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "one"

[providers.two]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "two"

[models."{model}"]
price = {{ input = "0.07", output = "0.25" }}
context = 1048576
max_output = 8192
deployments = [{{ provider = "one" }}, {{ provider = "two" }}]

[models.other]
price = {{ input = "0.10", output = "0.28" }}
context = 131072
max_output = 8192
deployments = [{{ provider = "one" }}, {{ provider = "two" }}]

[tiers.default]
models = ["{model}"]
then = ["fallback"]

[tiers.fallback]
models = ["other"]

[routing]
idle = "1h"
total = "1h"

[policies.bench]
tiers = ["*"]
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
max_concurrent = 100000

[teams.bench]

[[keys]]
name = "bench"
team = "bench"
policy = "bench"
secret = "env:BENCH_KEY"
"""


def contenders(args, folder, mock, connections=16384):
    """The servers under test, each with a port of its own and the provider at port `mock` as its upstream."""

    def contender(name, binary, config, command):
        port = free_port()
        if config:
            (folder / f"{name}.conf").write_text(
                config.format(folder=folder, port=port, mock=mock, key=KEY, model=MODEL, connections=connections)
            )
        command = [str(binary), *(part.format(port=port, config=folder / f"{name}.conf") for part in command)]
        return Contender(name, command, port, binary, folder, args.gateway_core)

    provider = f"http://127.0.0.1:{mock}/v1/chat/completions"
    return [
        contender("nginx", tool("nginx"), NGINX, ["-c", "{config}"]),
        contender("bare axum + reqwest", args.rig, None, ["pass", "127.0.0.1:{port}", provider, KEY]),
        contender("Tierway", args.tierway, TIERWAY, ["serve", "--config", "{config}"]),
    ]


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
            said = loads.open(port, per_second, seconds)
            return {f"{name}_p50_us": said["p50_us"], f"{name}_p99_us": said["p99_us"]}

        return measure

    def streams(port, server):
        def work():
            said = loads.streams(port)
            return said["frames"], said

        cpu, said = costed(server, work)
        return {"frame_cpu_us": cpu, "first_token_p50_us": said["first_token_p50_us"],
                "first_token_p99_us": said["first_token_p99_us"]}

    def large(port, server):
        cpu, _ = costed(server, lambda: loads.wrk(port, lengths.large, 8, filler=1 << 20))
        return {"large_cpu_us": cpu}

    def refusal(port, server):
        if not server:
            return {}
        cpu, _ = costed(server, lambda: loads.wrk(port, lengths.refused, 64, key="sk-wrong", refused=True))
        return {"refused_cpu_us": cpu}

    return {
        "whole answers": whole,
        "200 a second": at_rate("slow", 200, lengths.slow),
        "2,000 a second": at_rate("fast", 2000, lengths.fast),
        "streams": streams,
        "1 MiB bodies": large,
        "refusals": refusal,
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
        gateways = contenders(args, folder, mock_port)
        figures = interleaved(gateways, loads, mock_port)
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


# --- the whole run ----------------------------------------------------------------------------


def about_this(args):
    nginx = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True).stderr
    return {**machine(), "nginx": nginx.strip().rpartition("/")[2], "gateway_core": args.gateway_core,
            "load_core": args.load_core, "quick": args.quick}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer rounds: a quick check, not figures")
    parser.add_argument("--figures", type=Path, help="write every value of every round to this file, as JSON")
    add_arguments(parser)
    args = parser.parse_args()
    need("wrk", "nginx", packages="wrk nginx-light")
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
