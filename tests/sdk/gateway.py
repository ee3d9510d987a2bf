"""The gateway's binary with two scripted providers.

As a fixture: `with Stage() as stage`. As a command: `gateway.py COMMAND …` starts everything, runs a
command with the addresses in environment variables, and stops; that is how the Node tests run.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from messages_provider import MODELS, MessagesProvider
from provider import CHAT_MODELS, EMBEDDER, HEALTHY, REGIONS, RESPONDER, SPARE, Journal, Provider

PROJECT = Path(__file__).resolve().parents[2]
READY = "listening on "
START_WITHIN_S = 30
STOP_WITHIN_S = 10

# Small, so that a test can exceed it.
MAX_BODY_KIB = 64

SETTINGS = f"""
[server]
max_body = "{MAX_BODY_KIB}KiB"
drain = "1s"

[routing]
balance = "ordered"
max_attempts = 2
idle = "1s"

[tiers.default]
models = ["{HEALTHY}"]
then = ["fallback"]

[tiers.fallback]
models = ["{SPARE}"]

[aliases.auto]
split = {{ default = 80, fallback = 20 }}

[policies.standard]
tiers = ["default", "fallback"]
models = ["scene/*", "acme/embed-*", "acme/responder", "claude/*"]

[policies.trickle]
tiers = ["default"]
requests_per_minute = 1

[policies.pauper]
models = ["paid/model"]
budget = {{ limit = "0.000001", window = "day" }}

[[keys]]
name = "sdk-pauper"
policy = "pauper"
secret = "env:SDK_PAUPER_KEY"

[[keys]]
name = "sdk"
policy = "standard"
secret = "env:SDK_KEY"

[[keys]]
name = "sdk-trickle"
policy = "trickle"
secret = "env:SDK_TRICKLE_KEY"
"""

# Settings of single models.
PER_MODEL = {
    EMBEDDER: 'endpoints = ["embeddings"]\n',
    **dict.fromkeys(
        [RESPONDER, "scene/response-cut", "scene/response-failed", "scene/response-refused"],
        'endpoints = ["responses"]\n',
    ),
    "scene/us-silent": 'first_token = "500ms"\nwhole = "500ms"\n',
}


def configuration(providers: dict[str, Provider], anthropic: MessagesProvider, stream: str) -> str:
    """The `tierway.toml` of the tests, with this `[routing] stream`."""
    parts = [SETTINGS.replace("[routing]\n", f'[routing]\nstream = "{stream}"\n')]
    for name, provider in providers.items():
        parts.append(
            f'[providers.{name}]\nprotocol = "openai"\nbase_url = "{provider.url}/v1"\n'
            f'credential = "env:PROVIDER_KEY"\nregion = "{REGIONS[name]}"\n'
        )
    deployments = ", ".join(f'{{ provider = "{name}" }}' for name in providers)
    for model in [*CHAT_MODELS, EMBEDDER]:
        parts.append(f'[models."{model}"]\n{PER_MODEL.get(model, "")}deployments = [{deployments}]\n')
    bounds = 'price = { input = "1", output = "2" }\ncontext = 4096\nmax_output = 100\n'
    parts.append(f'[models."paid/model"]\n{bounds}deployments = [{deployments}]\n')
    parts.append(
        f'[providers.anthropic]\nprotocol = "anthropic"\nbase_url = "{anthropic.url}"\ncredential = "env:PROVIDER_KEY"\n'
    )
    parts += [f'[models."{model}"]\ndeployments = [{{ provider = "anthropic" }}]\n' for model in MODELS]
    return "\n".join(parts)


class Stage:
    """Providers, gateway and keys; everything on ports of the system's choice."""

    def __init__(self, tls: bool = False, stream: str = "strict"):
        self.tls = tls
        self.stream = stream
        self.key = f"sk-sdk-{secrets.token_hex(32)}"
        self.trickle_key = f"sk-trickle-{secrets.token_hex(32)}"
        self.pauper_key = f"sk-pauper-{secrets.token_hex(32)}"
        self.provider_key = f"sk-provider-{secrets.token_hex(32)}"
        self.journal = Journal()
        self.providers: dict[str, Provider] = {}

    def __enter__(self) -> "Stage":
        self.providers = {name: Provider(name, self.journal) for name in REGIONS}
        self.anthropic = MessagesProvider()
        self.folder = tempfile.TemporaryDirectory(prefix="tierway-sdk-")
        self.certificate = Path(self.folder.name) / "tls.crt"
        try:
            self.url = self._start_gateway()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.gateway.terminate()
        try:
            self.gateway.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
            self.gateway.wait()
        self.gateway.stdout.close()
        for provider in self.providers.values():
            provider.close()
        self.anthropic.close()
        self.folder.cleanup()

    def _start_gateway(self) -> str:
        folder = Path(self.folder.name)
        config = folder / "tierway.toml"
        config.write_text(configuration(self.providers, self.anthropic, self.stream), encoding="utf-8")
        log = folder / "stderr"
        with log.open("wb") as stderr:
            self.gateway = subprocess.Popen(
                [os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway"), "serve", "--config", config],
                cwd=folder,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "TIERWAY__SERVER__LISTEN": "127.0.0.1:0",
                    "PROVIDER_KEY": self.provider_key,
                    "SDK_KEY": self.key,
                    "SDK_TRICKLE_KEY": self.trickle_key,
                    "SDK_PAUPER_KEY": self.pauper_key,
                    **(self._issue_certificate() if self.tls else {}),
                },
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        # A gateway that prints nothing and does not end is killed, so that reading its stdout ends too.
        impatience = threading.Timer(START_WITHIN_S, self.gateway.kill)
        impatience.start()
        try:
            for line in self.gateway.stdout:
                if line.startswith(READY):
                    return line.removeprefix(READY).strip()
        finally:
            impatience.cancel()
        raise RuntimeError(f"the gateway did not start\n{log.read_text(errors='replace')[-4000:]}")

    def _issue_certificate(self) -> dict[str, str]:
        """Issues a certificate for loopback; returns the variables that make the gateway serve it."""
        key = self.certificate.with_name("tls.key")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tierway"
        alone = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.certificate]
        subprocess.run([*command.split(), *alone], check=True, capture_output=True)
        return {"TIERWAY__SERVER__TLS__CERT": f"file:{self.certificate}", "TIERWAY__SERVER__TLS__KEY": f"file:{key}"}

    def environment(self) -> dict[str, str]:
        """The variables with which a command finds gateway and providers."""
        return {
            "SDK_BASE_URL": f"{self.url}/v1",
            "SDK_KEY": self.key,
            "SDK_TRICKLE_KEY": self.trickle_key,
            "SDK_JOURNAL_URL": f"{self.providers['us'].url}/journal",
        }


def main(command: list[str]) -> int:
    if not command:
        print("usage: gateway.py COMMAND [ARGUMENT …]", file=sys.stderr)
        return 2
    with Stage() as stage:
        return subprocess.run(command, env={**os.environ, **stage.environment()}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
