"""The gateway's binary in front of a scripted provider, with one provider and one model for each name."""

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
KEY = "tw_corpus_0123456789abcdef0123456789abcdef"
READY = "listening on "
START_WITHIN_S = 30
STOP_WITHIN_S = 10

# One attempt and no breaker: a case that fails says so each time it is tried.
SETTINGS = """
[server]
drain = "1s"
max_body = "64MiB"
half_close = true

[store]
url = "memory:"

[routing]
max_attempts = 1
idle = "2s"
first_token = "5s"
whole = "5s"
breaker = { failures = 4294967295, min_requests = 4294967295 }

[policies.corpus]
models = ["*"]

[[keys]]
name = "corpus"
policy = "corpus"
secret = "env:CORPUS_KEY"
"""


# Only what has a price is said to be estimated.
PRICE = 'price = { input = "1", output = "2" }'


class Gateway:
    """Runs until `close`. `cases` are (name, `[gateway]`, endpoint)."""

    def __init__(self, provider_url: str, cases):
        self.folder = tempfile.TemporaryDirectory(prefix="tierway-corpus-")
        folder = Path(self.folder.name)
        self.receipts: dict[str, dict] = {}
        self.arrived = threading.Condition()
        (folder / "tierway.toml").write_text(configuration(provider_url, cases), encoding="utf-8")
        self.process = subprocess.Popen(
            [os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway"), "serve", "--config", folder / "tierway.toml"],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "TIERWAY__SERVER__LISTEN": "127.0.0.1:0", "CORPUS_KEY": KEY, "CREDENTIAL": "sk-corpus"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.url = self._ready()
        threading.Thread(target=self._collect, daemon=True).start()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def receipt(self, request_id: str) -> dict:
        """The access line of a request; it is written after the answer's end."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: request_id in self.receipts, STOP_WITHIN_S):
                raise AssertionError(f"no access line of {request_id}")
            return self.receipts[request_id]

    def _ready(self) -> str:
        # A gateway that prints nothing and does not end is killed, so that reading its stdout ends too.
        impatience = threading.Timer(START_WITHIN_S, self.process.kill)
        impatience.start()
        said = []
        try:
            for line in self.process.stdout:
                if line.startswith(READY):
                    return line.removeprefix(READY).strip()
                said.append(line)
        finally:
            impatience.cancel()
        raise RuntimeError("the gateway did not start\n" + "".join(said[-40:]))

    def _collect(self) -> None:
        for line in self.process.stdout:
            if '"target":"access"' in line:
                receipt = json.loads(line)
                with self.arrived:
                    self.receipts[receipt["request_id"]] = receipt
                    self.arrived.notify_all()


def configuration(provider_url: str, cases) -> str:
    parts = [SETTINGS]
    for name, settings, endpoint in cases:
        parts.append(
            f'[providers."{name}"]\nprotocol = "openai"\nbase_url = "{provider_url}/{name}/v1"\n'
            f'credential = "env:CREDENTIAL"\n{settings.get("provider", "")}\n'
            f'[models."corpus/{name}"]\nendpoints = ["{endpoint}"]\n{PRICE}\n{settings.get("model", "")}\n'
            f'deployments = [{{ provider = "{name}" }}]\n'
        )
    return "\n".join(parts)
