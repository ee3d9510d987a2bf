"""A running gateway with traffic of every kind, and a Prometheus that scrapes it.

The gateway is the debug binary with the demo's configuration and a provider that always fails;
Prometheus runs with the project's configuration and rules, its target and intervals replaced.
"""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway"))
RULES = PROJECT / "config/prometheus/tierway.rules.yml"
START_WITHIN_S = 30
STOP_WITHIN_S = 10
ANSWER_WITHIN_S = 20

KEY = "sk-ops-0123456789abcdef0123456789abcdef"
TRICKLE_KEY = "sk-ops-trickle-0123456789abcdef01234567"
METRICS_TOKEN = "twm-ops-0123456789abcdef0123456789abcdef"

# What the demo does not have: failures, fallbacks, open breakers, a limit that is reached.
TROUBLE = f"""
[providers.sim-broken]
protocol   = "sim"
region     = "us-west"
error_rate = "100%"

[models."ops/shaky"]
price       = {{ input = "1", output = "1" }}
deployments = [{{ provider = "sim-broken" }}, {{ provider = "sim-us" }}]

[models."ops/down"]
price       = {{ input = "1", output = "1" }}
deployments = [{{ provider = "sim-broken" }}]

[policies.ops]
tiers    = ["*"]
models   = ["ops/*"]
reserved = true
sla      = {{ uptime = "99.9%" }}

[policies.trickle]
tiers               = ["default"]
requests_per_minute = 1
budget              = {{ limit = "5.00", window = "day" }}

[[keys]]
name   = "ops"
policy = "ops"
secret = "env:OPS_KEY"

[[keys]]
name   = "ops-trickle"
policy = "trickle"
secret = "env:OPS_TRICKLE_KEY"
"""

# A proxy of this machine must not be used for loopback.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """A child process that prints its address on one of its streams."""

    def __init__(self, command: list, says: str, stream: str, folder: Path, env: dict[str, str]):
        self.log = folder / "log"
        with self.log.open("wb") as log:
            streams = {"stdout": log, "stderr": log, stream: subprocess.PIPE}
            self.process = subprocess.Popen(command, cwd=folder, env=env, text=True, **streams)
        self.pipe = getattr(self.process, stream)
        # A child that prints nothing and does not end is killed, so that reading ends too.
        impatience = threading.Timer(START_WITHIN_S, self.process.kill)
        impatience.start()
        heard = []
        try:
            for line in self.pipe:
                heard.append(line)
                if match := re.search(says, line):
                    self.address = match[1]
                    break
            else:
                self.process.wait()
                raise RuntimeError(f"{command[0]} did not start\n{''.join(heard)}{self.log.read_text()[-4000:]}")
        finally:
            impatience.cancel()
        self.rest = threading.Thread(target=self.pipe.read, daemon=True)
        self.rest.start()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.rest.join(STOP_WITHIN_S)
        self.pipe.close()


class Gateway:
    def __init__(self, folder: Path):
        folder.mkdir()
        config = folder / "tierway.toml"
        config.write_text((PROJECT / "config/tierway.toml").read_text() + TROUBLE)
        env = {
            "TIERWAY__SERVER__LISTEN": "127.0.0.1:0",
            # An SLA needs receipts that outlive the process.
            "TIERWAY__STORE__URL": f"sqlite:{folder / 'ops.db'}",
            # As written: the provider that fails comes first.
            "TIERWAY__ROUTING__BALANCE": "ordered",
            "OPS_KEY": KEY,
            "OPS_TRICKLE_KEY": TRICKLE_KEY,
            "TIERWAY__TELEMETRY__METRICS_TOKEN": METRICS_TOKEN,
        }
        command = [BINARY, "serve", "--config", config]
        self.service = Service(command, r"^listening on http://(\S+)", "stdout", folder, env)
        self.address = self.service.address

    def ask(self, model: str, key: str = KEY, path: str = "chat/completions", **fields) -> int:
        """The status of one call, its answer read to the end."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **fields}
        request = urllib.request.Request(
            f"http://{self.address}/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        try:
            with opener.open(request, timeout=ANSWER_WITHIN_S) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            error.read()
            return error.code

    def traffic(self) -> list[int]:
        """Sends one request for every kind of end that can be caused here; returns their statuses."""
        return [
            self.ask("auto"),
            self.ask("premium", stream=True),
            self.ask("Pro/deepseek-ai/DeepSeek-V3.2"),
            self.ask("ops/shaky", stream=True),
            self.ask("ops/down"),
            self.ask("auto", key="sk-wrong"),
            self.ask("no-such-model"),
            self.ask("auto", path="no/such/path"),
            self.ask("default", key=TRICKLE_KEY),
            self.ask("default", temperature={}, messages=7),
        ]

    def metrics(self) -> str:
        headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
        request = urllib.request.Request(f"http://{self.address}/metrics", headers=headers)
        return opener.open(request, timeout=ANSWER_WITHIN_S).read().decode()


class Prometheus:
    """Prometheus with the project's configuration and rules, scraping `target` several times a second."""

    def __init__(self, folder: Path, target: str):
        folder.mkdir()
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "500ms"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        # There are no such names here.
        del config["scrape_configs"][0]["dns_sd_configs"]
        (folder / "token").write_text(METRICS_TOKEN)
        config["scrape_configs"][0]["authorization"]["credentials_file"] = str(folder / "token")
        config["rule_files"] = [str(RULES)]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]
        env = {"PATH": os.environ["PATH"]}
        self.service = Service(command, r'"?Listening on"? address=(127\S+)', "stderr", folder, env)

    def get(self, path: str, **query) -> dict:
        """The data of an answer; an expression that Prometheus refuses raises its error."""
        url = f"http://{self.service.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with opener.open(url, timeout=ANSWER_WITHIN_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def query(self, expr: str) -> list[dict]:
        """The series whose value is a number."""
        return [series for series in self.get("query", query=expr)["result"] if series["value"][1] != "NaN"]

    def rules(self) -> list[dict]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


class Stage:
    def __enter__(self) -> "Stage":
        self.folder = tempfile.TemporaryDirectory(prefix="tierway-ops-")
        self.services: list[Service] = []
        try:
            folder = Path(self.folder.name)
            self.gateway = Gateway(folder / "gateway")
            self.services.append(self.gateway.service)
            self.prometheus = Prometheus(folder / "prometheus", self.gateway.address)
            self.services.append(self.prometheus.service)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for service in reversed(self.services):
            service.stop()
        self.folder.cleanup()

    def traffic_until(self, missing, within_s: float = 60) -> None:
        """Sends traffic until `missing()` returns nothing; after `within_s` seconds, fails with what is missing."""
        deadline = time.monotonic() + within_s
        while names := missing():
            assert time.monotonic() < deadline, f"after {within_s} s still nothing of: {names}"
            self.gateway.traffic()
