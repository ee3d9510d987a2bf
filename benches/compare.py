"""Tierway beside what else one could put there, in one interleaved run: `make bench`.

Every measure is taken of every contender in turn, round after round, so that a machine which is slow
for a minute is slow for all of them. The gateway has one core; provider and load share the other.
What a request costs is the gateway's own processor time as the kernel accounts it, which drifts less
than wall time. Read the ratios to nginx.

It must never pass over a failed request: an answer that is not the one asked for ends the run.

Writes docs/performance.md and its plots from the medians; start reading in `main`.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import page

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
MODEL = "bench-model"
TICK = os.sysconf("SC_CLK_TCK")
SECRETS = {"BENCH_KEY": KEY, "BENCH_CREDENTIAL": "sk-provider", "BENCH_ADMIN": "admin-" + KEY}
FRAMES = 50
PACE_MS = 20


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


FULL = Lengths(
    rounds=3, warm_up=2, closed=5, slow=10, fast=5, streams=200, stream_times=5, held=2000, large=4, refused=3
)
QUICK = Lengths(
    rounds=2, warm_up=1, closed=2, slow=2, fast=2, streams=200, stream_times=1, held=1000, large=2, refused=1
)


# --- processes --------------------------------------------------------------------------------


def pinned(core):
    """Run in the child: on one core, with room for many connections."""

    def prepare():
        os.sched_setaffinity(0, {core})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return prepare


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that listens, and the processor time and memory of it and its children."""

    def __init__(self, command, port, core, log):
        self.port = port
        with open(log, "ab") as sink:
            begun = time.perf_counter()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, preexec_fn=pinned(core),
                env={**os.environ, **SECRETS},
            )
        self.ready_ms = (self.wait_until_ready(log) - begun) * 1000

    def wait_until_ready(self, log):
        deadline = time.perf_counter() + 10
        while time.perf_counter() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n")
                    if connection.recv(1):
                        return time.perf_counter()
            except OSError:
                time.sleep(0.0005)
            if self.process.poll() is not None:
                break
        raise SystemExit(f"{self.process.args[0]} does not serve:\n{Path(log).read_text(errors='replace')[-2000:]}")

    def pids(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def cpu_seconds(self):
        def of(pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / TICK

        return sum(map(of, self.pids()))

    def rss_kib(self):
        def of(pid):
            return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])

        return sum(map(of, self.pids()))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Contender:
    """Something that is asked: how it is started, on which port it listens."""

    def __init__(self, name, command, port, binary, folder, core):
        self.name, self.command, self.port, self.binary, self.core = name, command, port, binary, core
        self.log = folder / f"{name}.log"

    def start(self):
        return Server(self.command, self.port, self.core, self.log)


# --- contenders -------------------------------------------------------------------------------

NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 16384; }}
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

# Everything on: the key has a rate, a token and a concurrency limit, two deployments are weighed
# against each other, breakers count, and every request is logged and counted.
TIERWAY = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"

[store]
url = "memory:"

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


def contenders(args, folder, mock):
    """Those that stand between; each gets a port of its own for all its lives."""

    def contender(name, binary, config, command):
        port = free_port()
        if config:
            (folder / f"{name}.conf").write_text(
                config.format(folder=folder, port=port, mock=mock.port, key=KEY, model=MODEL)
            )
        command = [str(binary), *(part.format(port=port, config=folder / f"{name}.conf") for part in command)]
        return Contender(name, command, port, binary, folder, args.gateway_core)

    provider = f"http://127.0.0.1:{mock.port}/v1/chat/completions"
    return [
        contender("nginx", shutil.which("nginx") or "/usr/sbin/nginx", NGINX, ["-c", "{config}"]),
        contender("bare axum + reqwest", args.rig, None, ["pass", "127.0.0.1:{port}", provider, KEY]),
        contender("Tierway", args.tierway, TIERWAY, ["serve", "--config", "{config}"]),
    ]


# --- loads ------------------------------------------------------------------------------------


class Loads:
    """Everything that is asked of a contender, from the other core."""

    def __init__(self, args, folder, lengths):
        self.rig, self.core, self.folder, self.lengths = str(args.rig), args.load_core, folder, lengths

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pinned(self.core))
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command[:3]))} failed:\n{done.stderr}{done.stdout}"[:4000])
        return done.stdout

    def wrk(self, port, seconds, connections, key=KEY, filler=0, refused=False):
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x" * filler or "Say something."}]})
        script = self.folder / "request.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['content-type'] = 'application/json'\n"
            f"wrk.headers['authorization'] = 'Bearer {key}'\n"
        )
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
        said = self.run(command)
        requests = int(re.search(r"(\d+) requests in", said)[1])
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        if "Socket errors" in said or not requests or (int(bad[1]) if bad else 0) != (requests if refused else 0):
            raise SystemExit(f"port {port} did not answer as it should:\n{said}")
        return requests, float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])

    def open(self, port, per_second, seconds):
        command = [self.rig, "open", f"127.0.0.1:{port}", "--key", KEY]
        return json.loads(self.run([*command, "--per-second", str(per_second), "--seconds", str(seconds)]))

    def streams(self, port):
        command = [self.rig, "streams", f"127.0.0.1:{port}", "--key", KEY, "--streams", str(self.lengths.streams)]
        shape = ["--times", str(self.lengths.stream_times), "--frames", str(FRAMES), "--pace-ms", str(PACE_MS)]
        return json.loads(self.run([*command, *shape]))

    def hold(self, port, look):
        """What `look` sees while the streams are open."""
        command = [self.rig, "hold", f"127.0.0.1:{port}", "--key", KEY, "--streams", str(self.lengths.held)]
        holding = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(self.core)
        )
        if not holding.stdout.readline():
            raise SystemExit(f"port {port} does not hold {self.lengths.held} streams")
        time.sleep(0.3)
        seen = look()
        holding.communicate(timeout=30)
        return seen


# --- measures ---------------------------------------------------------------------------------


def measures(loads):
    """Every measure: of a port, with the gateway behind it or `None`, the figures it yields."""
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
    """What can only be seen of one that has served nothing yet."""
    server = contender.start()
    try:
        time.sleep(0.3)
        idle = server.rss_kib()
        held = loads.hold(contender.port, server.rss_kib)
        return {"ready_ms": server.ready_ms, "idle_mib": idle / 1024,
                "stream_kib": (held - idle) / loads.lengths.held}
    finally:
        server.stop()


def run(args, folder):
    """The figures: contender, then measure, to its values, one per round."""
    lengths = QUICK if args.quick else FULL
    loads = Loads(args, folder, lengths)
    mock_port = free_port()
    mock = Server([str(args.rig), "mock", f"127.0.0.1:{mock_port}"], mock_port, args.load_core, folder / "mock.log")
    gateways = contenders(args, folder, mock)
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
        for server in [*servers.values(), mock]:
            server.stop()
    for gateway in gateways:
        note(gateway.name, {"binary_mib": os.path.getsize(gateway.binary) / (1 << 20)})
    return figures, lengths


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


# --- the whole run ----------------------------------------------------------------------------


def build(args):
    """What was not handed in is built: the gateway as it is shipped, then the rig beside it."""
    if not args.tierway:
        args.tierway = cargo("--bin", "tierway")
    if not args.rig:
        args.rig = cargo("--bench", "rig")


def cargo(kind, name):
    """Builds one target and says where it is."""
    said = subprocess.run(
        ["cargo", "build", "--release", "--locked", kind, name, "--message-format=json-render-diagnostics"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    made = [line for line in map(json.loads, said.splitlines()) if line.get("target", {}).get("name") == name]
    return made[-1]["executable"]


def machine(args):
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    nginx = subprocess.run([shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "nginx": nginx.strip().rpartition("/")[2],
        "load": f"{os.getloadavg()[0]:.1f}",
        "gateway_core": args.gateway_core,
        "load_core": args.load_core,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer rounds: for a look, not for figures")
    parser.add_argument("--tierway", type=Path, help="a binary built already")
    parser.add_argument("--rig", type=Path, help="the helper, built already")
    parser.add_argument("--gateway-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--figures", type=Path, help="write every value of every round there, as JSON")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page and its plots go")
    args = parser.parse_args()
    missing = [tool for tool in ["wrk", "nginx"] if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)} (Debian: apt install wrk nginx-light)")
    build(args)
    about = machine(args)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tierway-bench-") as folder:
        os.chmod(folder, 0o755)
        figures, lengths = run(args, Path(folder))
    about["minutes"] = (time.monotonic() - begun) / 60
    about["quick"] = args.quick
    if args.figures:
        args.figures.write_text(json.dumps({"about": about, "figures": figures}, indent=1))
    page.write(args.docs, figures, lengths, about)
    print(page.table(figures))


if __name__ == "__main__":
    main()
