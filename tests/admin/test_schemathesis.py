"""Requests made from the API's own document, right and wrong ones, against the real binary.

Whatever is asked, no answer is a server error or other than the document says, what the document forbids is
refused, and nothing is answered without a token. It repeats exactly from its seed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from conftest import bearer

SEED = os.environ.get("SCHEMATHESIS_SEED", "20261122")
#: Cases for an operation in each phase; raise it to look for longer.
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "15")
#: Its answer does not end: tests/admin/sessions.rs reads it.
STREAM = "/admin/v1/live"
#: A name that fits the document may still name no policy, team or request that is there.
LEFT_OUT = "positive_data_acceptance"
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.mark.parametrize("token, examples", [("ADMIN_TOKEN", EXAMPLES), ("VIEWER_TOKEN", "3")])
def test_every_answer_is_as_documented(gateway, token, examples):
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{gateway.url}/admin/v1/openapi.json",
            "-H", f"Authorization: {bearer(token)['authorization']}",
            "--checks", "all", "--exclude-checks", LEFT_OUT, "--exclude-path", STREAM,
            "--max-examples", examples, "--seed", SEED, "--no-color",
        ],
        cwd=gateway.folder, capture_output=True, text=True, timeout=300,
    )
    print(run.stdout)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{gateway.log()[-4000:]}"
    document = requests.get(f"{gateway.url}/admin/v1/openapi.json", headers=bearer(token), timeout=20).json()
    paths = document["paths"].values()
    operations = sum(method in METHODS for path in paths for method in path)
    assert operations > 17 and f"Tested: {operations - 2}" in run.stdout, "all but the document and the stream"
    assert "panicked" not in gateway.log()
