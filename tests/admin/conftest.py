"""A gateway as it is shipped, with a database, a simulated provider and operators' tokens of its own."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = Path(os.environ.get("TIERWAY_BIN", ROOT / "target/debug/tierway"))
CONFIG = """
[server]
listen = "127.0.0.1:0"
admin_token = "env:ADMIN_TOKEN"
viewer_token = "env:VIEWER_TOKEN"

[store]
url = "sqlite:tierway.db"

[providers.sim]
protocol = "sim"
region = "us-east"

[models.small]
deployments = [{ provider = "sim" }]
price = { input = "1.00", output = "2.00" }
context = 1000
max_output = 100

[tiers.default]
models = ["small"]

[drill]
enabled = true

[policies.standard]
tiers = ["default"]
sla = { uptime = "99.9%", credits = [{ below = "99.9%", credit = "10%" }] }

[[keys]]
name = "app"
policy = "standard"
secret = "env:APP_KEY"
"""
SECRETS = {"ADMIN_TOKEN": "twa_tests_admin", "VIEWER_TOKEN": "twv_tests_viewer", "APP_KEY": "tw_tests_app"}


@pytest.fixture
def gateway(tmp_path):
    """Serving at `url`; a few requests are in its ledger."""
    (tmp_path / "tierway.toml").write_text(CONFIG)
    log = (tmp_path / "log").open("w")
    serving = subprocess.Popen(
        [BINARY, "serve"], cwd=tmp_path, env={"PATH": os.environ["PATH"], **SECRETS},
        text=True, stdout=subprocess.PIPE, stderr=log,
    )
    try:
        url = next(line.split()[-1] for line in serving.stdout if line.startswith("listening on"))
        chat = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
        for _ in range(3):
            answer = requests.post(f"{url}/v1/chat/completions", json=chat, headers=bearer("APP_KEY"), timeout=20)
            assert answer.status_code == 200, answer.text
        yield SimpleNamespace(url=url, folder=tmp_path, log=lambda: (tmp_path / "log").read_text())
    finally:
        serving.terminate()
        serving.wait(20)
        log.close()


def bearer(name):
    return {"authorization": f"Bearer {SECRETS[name]}"}
