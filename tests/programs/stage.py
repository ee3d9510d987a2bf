"""The gateway's binary in front of the scripted provider, and a tap that keeps what programs send to it.

Every program has a model of its own for each scene, so that one that breaks rests no other's deployment.
"""

import io
import json
import os
import re
import secrets
import socket
import struct
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from gateway import PROJECT, READY
from provider import Provider, Visit
from scripted import SCENES, ScriptedProvider
from suites import serving

CONFIG = """
[server]
listen = "127.0.0.1:0"

[store]
url = "memory:"

[providers.openai]
protocol = "openai"
base_url = "{url}/v1"
credential = "env:PROVIDER_KEY"

[providers.anthropic]
protocol = "anthropic"
base_url = "{url}"
credential = "env:PROVIDER_KEY"

[policies.programs]
models = ["*"]

[[keys]]
name = "programs"
policy = "programs"
secret = "env:PROGRAM_KEY"

[policies.paid]
models = {paid}
budget = {{ limit = "10", window = "day" }}

[[keys]]
name = "paid"
policy = "paid"
secret = "env:PAID_KEY"
"""
#: The scene of models with a price; everything goes well there.
PAID = "paid/good"
PRICE = 'price = { input = "1", output = "2" }\ncontext = 400000\nmax_output = 100000\n'
DIALECTS = {
    "responses": 'endpoints = ["responses"]\ndeployments = [{ provider = "openai" }]\n',
    "messages": 'deployments = [{ provider = "anthropic" }]\n',
}


class Tap:
    """Passes connections on to the address of `url`, and keeps every byte that its clients sent."""

    def __init__(self, url: str):
        self.to = (urlsplit(url).hostname, urlsplit(url).port)
        self.sent: list[bytearray] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def requests(self, model: str) -> list[Visit]:
        """The requests for `model`, as they were sent."""
        out = []
        for sent in map(io.BytesIO, self.sent):
            while (visit := Provider.read(sent, "tap")) is not None:
                if visit.body and visit.json.get("model") == model:
                    out.append(visit)
        return out

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            gateway = socket.create_connection(self.to)
            self.sent.append(sent := bytearray())
            threading.Thread(target=self._pass, args=(client, gateway, sent), daemon=True).start()
            threading.Thread(target=self._pass, args=(gateway, client, bytearray()), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # What was reset is reset on the other side too.
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sink.close()


class ProgramStage:
    """Provider, gateway and tap, on ports of the system's choice; `programs` names each one's dialect."""

    def __init__(self, programs: dict[str, str]):
        self.key = f"sk-program-{secrets.token_hex(16)}"
        self.paid_key = f"sk-paid-{secrets.token_hex(16)}"
        self.provider_key = f"sk-provider-{secrets.token_hex(16)}"
        self.programs = programs

    def __enter__(self) -> "ProgramStage":
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tierway-programs-")))
            self.provider = ScriptedProvider()
            stack.callback(self.provider.close)
            config = folder / "tierway.toml"
            models = [
                f'\n[models."{name}/{scene}"]\n{DIALECTS[dialect]}{PRICE if scene == PAID else ""}'
                for name, dialect in self.programs.items()
                for scene in [*SCENES, PAID]
            ]
            paid = json.dumps([f"{name}/{PAID}" for name in self.programs])
            config.write_text(CONFIG.format(url=self.provider.url, paid=paid) + "".join(models), encoding="utf-8")
            environment = {"PATH": os.environ["PATH"], "PROVIDER_KEY": self.provider_key, "PROGRAM_KEY": self.key, "PAID_KEY": self.paid_key}
            binary = os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway")
            command = [binary, "serve", "--config", config]
            self.url = stack.enter_context(serving(command, environment, folder, re.escape(READY) + r"(\S+)"))
            self.tap = Tap(self.url)
            stack.callback(self.tap.close)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self.stack.close()
