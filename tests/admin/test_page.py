"""Does what docs/admin-api.md says, as it stands there, against the real binary.

The commands go to one shell in the order of the page; only the gateway's address is exchanged. It must never
correct the page: a command that fails, or an answer that is not the one promised, fails the test.
"""

import os
import re
import subprocess

from conftest import ROOT, SECRETS

#: What each block must print.
PROMISED = [
    r'"object":"list"',
    r'"secret":"tw_standard_',
    r'"requests_per_minute":20.*"disabled":false|"disabled":false.*"requests_per_minute":20',
    r'"secret":"tw_standard_',
    r'"name":"growth"',
    r'"amount":"10"[\s\S]*"left":"10"',
    r'"object":"usage"',
    r'"object":"request"',
    r'"object":"list"',
    r'"policy":"standard"[\s\S]*"month":|"month":[\s\S]*"policy":"standard"',
    r'"how_to_measure":[\s\S]*"object":"posture"',
    r'"object":"status"',
    r'"kind":"status"[\s\S]*"object":"list"[\s\S]*"object":"fault"',
    r'"object":"history"[\s\S]*"object":"gateway"',
    r'"object":"configuration"[\s\S]*"refused":null',
    r'HTTP/1.1 412',
    r'"openapi":"3.1.0"',
]


def test_the_page_does_what_it_says(gateway):
    page = (ROOT / "docs" / "admin-api.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == len(PROMISED)
    shell = {
        "PATH": os.environ["PATH"], "TIERWAY": gateway.url, "TIERWAY_ADMIN_TOKEN": SECRETS["ADMIN_TOKEN"],
    }
    secrets = set()
    for block, promised in zip(blocks, PROMISED):
        # What the page sets at its beginning is set here.
        block = re.sub(r"^export TIERWAY.*$", "", block, flags=re.MULTILINE)
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], env=shell, cwd=gateway.folder, capture_output=True, text=True, timeout=60,
        )
        assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
        assert re.search(promised, run.stdout), f"{block}\n{run.stdout}"
        secrets.update(re.findall(r"tw_standard_\w+", run.stdout))
    log = gateway.log()
    for operation in ["create_key", "change_key", "rotate_key"]:
        assert f'"operation":"{operation}","subject":"growth-app","role":"operator"' in log
    assert len(secrets) == 2
    for kept in [log.encode(), *(file.read_bytes() for file in gateway.folder.glob("tierway.db*") if file.is_file())]:
        assert not any(secret.encode() in kept for secret in [*secrets, *SECRETS.values()])
