"""What the outage benchmarks share: providers that fail on command, a gateway with default settings before
them, and the official Python client as its load.

It must never set a value of `[routing]`: what is measured is what somebody gets who sets nothing.

Start reading at `Stage`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from processes import KEY, ROOT, SECRETS, Server, cargo, free_port

SDK_PYTHON = ROOT / "tests" / "sdk" / ".venv" / "bin" / "python"
HERE = Path(__file__).resolve().parent
CORES = sorted(os.sched_getaffinity(0))

HEAD = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"

[policies.bench]
tiers = ["*"]
models = ["*"]

[[keys]]
name = "bench"
policy = "bench"
secret = "env:BENCH_KEY"
"""

PROVIDER = """
[providers.{name}]
protocol = "openai"
base_url = "http://127.0.0.1:{port}/v1"
credential = {credential}
region = "{region}"
"""


def provider_section(name, port, region, credential='"env:BENCH_CREDENTIAL"'):
    return PROVIDER.format(name=name, port=port, region=region, credential=credential)


def model_section(name, providers, price="0.07"):
    deployments = ", ".join(f'{{ provider = "{provider}" }}' for provider in providers)
    return f'\n[models."{name}"]\nprice = {{ input = "{price}", output = "{price}" }}\ndeployments = [{deployments}]\n'


class Providers:
    """One process of `fault_provider.py`; `ports` has the port of each name."""

    def __init__(self, names, first_ms=80, pace_ms=20):
        command = [sys.executable, HERE / "fault_provider.py", *names, "--first-ms", first_ms, "--pace-ms", pace_ms]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the providers did not start")
        self.ports = json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def fail(self, name, **fault):
        """Returns when the fault is in effect."""
        self.process.stdin.write(json.dumps({"provider": name, **fault}) + "\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise SystemExit("the providers ended")


class Stage:
    """Providers and a gateway that reads `sections`; both end with the block."""

    def __init__(self, tierway, folder, name, providers, sections, secrets=None):
        self.providers, self.folder, self.name, self.tierway = providers, Path(folder), name, tierway
        self.config = self.folder / f"{name}.toml"
        self.port = free_port()
        self.config.write_text(HEAD.format(port=self.port) + "".join(sections))
        SECRETS.update(secrets or {})

    def __enter__(self):
        self.server = Server([self.tierway, "serve", "--config", self.config], self.port, CORES, self.folder / f"{self.name}.log")
        return self

    def __exit__(self, *_):
        self.server.stop()

    @property
    def target(self):
        return {"name": "gateway", "base_url": f"http://127.0.0.1:{self.port}/v1", "key": KEY}


class Load:
    """`sdk_load.py` under way, with what its `main` reads: one process for each timeout of the clients, because the
    client's own work for 100 streams a second is most of a core."""

    def __init__(self, load):
        if not SDK_PYTHON.exists():
            raise SystemExit(f"{SDK_PYTHON} is missing: make tests/sdk/.venv/installed")
        # A proxy or an address set for the official client on this machine would change what is measured.
        kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(("openai", "http", "all_proxy"))}
        parts = [{**load, "timeouts": [timeout], "per_second": load["per_second"] / len(load["timeouts"])}
                 for timeout in load["timeouts"]]
        self.processes = [
            subprocess.Popen([str(SDK_PYTHON), str(HERE / "sdk_load.py"), json.dumps(part)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, env=kept)
            for part in parts
        ]
        for process in self.processes:
            if not process.stdout.readline():
                raise SystemExit("the load did not start")
        self.begins = time.time() + 0.5
        for number, process in enumerate(self.processes):
            # The processes take turns.
            process.stdin.write(f"{self.begins + number / load['per_second']}\n")
            process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait_until(self, second):
        time.sleep(max(0, self.begins + second - time.time()))

    def requests(self):
        """Every request, when all have ended."""
        said = []
        for process in self.processes:
            said += [json.loads(line) for line in process.stdout]
            if process.wait():
                raise SystemExit("the load ended with an error")
        return sorted(said, key=lambda request: request["due_s"])


def add_arguments(parser):
    parser.add_argument("--tierway", type=Path, help="a binary built already; without it the release binary is built")
    parser.add_argument("--figures", type=Path, help="write every request to this file, as JSON, or read them with --draw")
    parser.add_argument("--draw", action="store_true", help="run nothing: print and write from --figures again")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where to write the page")


def build(args):
    if not args.tierway:
        args.tierway = cargo("--bin", "tierway")


def build_of(tierway):
    return "release" if "release" in Path(tierway).parts else "debug" if "debug" in Path(tierway).parts else "given"


def quantile(values, share):
    values = sorted(values)
    return values[round((len(values) - 1) * share)] if values else None


def in_ms(value):
    return "–" if value is None else f"{value:,.0f} ms"
