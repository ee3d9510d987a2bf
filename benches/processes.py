"""The processes of a benchmark: built, started on a core and a free port, measured, ended.

It must never leave one running: each is a context manager and is ended by its pid however the benchmark ends.

Start reading at `Server`.
"""

import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
MODEL = "bench-model"
ATTACKER_KEY = "sk-attacker-0123456789abcdef0123456789abcdef"
#: The key of one request a minute: all others are refused with 429.
LIMITED_KEY = "sk-limited-0123456789abcdef0123456789abcdef"
SECRETS = {"BENCH_KEY": KEY, "BENCH_LIMITED": LIMITED_KEY, "BENCH_ATTACKER": ATTACKER_KEY, "BENCH_CREDENTIAL": "sk-provider", "BENCH_ADMIN": "admin-" + KEY}
TICK = os.sysconf("SC_CLK_TCK")


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


# --- what is started --------------------------------------------------------------------------


def add_arguments(parser):
    """The arguments that all benchmarks share."""
    parser.add_argument("--tierway", type=Path, help="a binary built already")
    parser.add_argument("--rig", type=Path, help="the helper, built already")
    parser.add_argument("--gateway-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where to write the page and its plots")


def build(args):
    """Builds what was not passed as an argument: the release gateway, then the rig."""
    if not args.tierway:
        args.tierway = cargo("--bin", "tierway")
    if not args.rig:
        args.rig = cargo("--bench", "rig")


def cargo(kind, name):
    say(f"building {name}")
    said = subprocess.run(
        ["cargo", "build", "--release", "--locked", kind, name, "--message-format=json-render-diagnostics"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    made = [line for line in map(json.loads, said.splitlines()) if line.get("target", {}).get("name") == name]
    return made[-1]["executable"]


def pinned(*cores):
    """Returns what runs in the child before exec: pin it to these cores, raise its limit on open files."""

    def prepare():
        os.sched_setaffinity(0, set(cores))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return prepare


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def machine():
    """The machine of the figures."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


# --- one that serves --------------------------------------------------------------------------


class Server:
    """A process that listens, and the processor time and memory of it and its children."""

    def __init__(self, command, port, cores, log, path="/healthz", store=None, tls=False):
        self.port = port
        self.path = path
        self.tls = tls
        # Tierway stores its receipts, as it does by default, but next to the log.
        store = {"TIERWAY__STORE__URL": store or f"sqlite:{Path(log).with_suffix('.db').absolute()}"}
        store["TIERWAY__TELEMETRY__METRICS"] = "open"
        with open(log, "ab") as sink:
            begun = time.perf_counter()
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                preexec_fn=pinned(*([cores] if isinstance(cores, int) else cores)), env={**os.environ, **SECRETS, **store},
            )
        self.ready_ms = (self.wait_until_ready(log) - begun) * 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self, log):
        deadline = time.perf_counter() + 30
        while time.perf_counter() < deadline:
            try:
                with self.connect() as connection:
                    connection.sendall(f"GET {self.path} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n".encode())
                    if connection.recv(1):
                        return time.perf_counter()
            except OSError:
                time.sleep(0.0005)
            if self.process.poll() is not None:
                break
        self.stop()
        raise SystemExit(f"{self.process.args[0]} does not serve:\n{Path(log).read_text(errors='replace')[-2000:]}")

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        return ssl._create_unverified_context().wrap_socket(connection) if self.tls else connection

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

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is not None:
            return
        self.signal(signal.SIGTERM)
        # A stopped process handles no other signal until it continues.
        self.signal(signal.SIGCONT)
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def tool(name):
    """The path of a system program; Debian's servers are not in every user's PATH."""
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


def need(*names, packages):
    missing = [name for name in names if not tool(name)]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)} (Debian: apt install {packages})")
