"""The test suites that come with OpenAI's own Python client, directly at a mock and through the gateway: `make sdk-suites`.

The suites are those of the source distribution for chat, completions, embeddings and models; the mock answers from
OpenAI's API description (openapi.json; another one by `--spec`). What passes directly must pass through the gateway. The
exceptions are in `NOT_SERVED`: what they ask for must be refused as unknown, and every other difference is a failure.

Start reading in `main`.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from gateway import PROJECT, READY, START_WITHIN_S

HERE = Path(__file__).resolve().parent
#: The client's key in the suites; it has blanks in it.
SUITE_KEY = re.compile(r'^api_key = "(.*)"$', re.MULTILINE)
MODEL_NAME = re.compile(r'(?:model=|\.models(?:\.with_\w+)?\.retrieve\(\s*)"([^"]+)"')
SUITES = {
    "chat": ["chat/test_completions.py", "chat/completions/test_messages.py"],
    "completions": ["test_completions.py"],
    "embeddings": ["test_embeddings.py"],
    "models": ["test_models.py"],
}
#: What the gateway refuses: it keeps no answers, and lists models without owning them. A test that only tries a wrong
#: argument (`test_path_params_…`) sends nothing and is none of these.
SENDS = r".*:test_(method|raw_response|streaming_response)_"
NOT_SERVED = {
    "stored chat completions": r"/chat/test_completions\.py" + SENDS + "(retrieve|update|list|list_with_all_params|delete)$",
    "messages of stored chat completions": r"/chat/completions/test_messages\.py" + SENDS + "(list|list_with_all_params)$",
    "deletion of models": r"/test_models\.py" + SENDS + "delete$",
}
REFUSED = re.compile(r"Error code: 40[45] - (There is no path|This path does not take that method)")
# The client of the suites is configured so: openai-python, scripts/mock.
FORMATS = [f"--validator-{place}-{kind}-format=brackets" for place in ("query", "form") for kind in ("array", "object")]
#: It takes seconds.
RUN_WITHIN_S = 300
MOCK_READY = re.compile(r"Ready to accept requests on (\S+)")

CONFIG = """
[server]
listen = "127.0.0.1:0"

[store]
url = "memory:"

[providers.mock]
protocol = "openai"
base_url = "{mock}"
credential = "env:PROVIDER_KEY"
{models}
[tiers.default]
models = [{names}]

[policies.suite]
tiers = ["*"]

[[keys]]
name = "suite"
policy = "suite"
secret = "env:SUITE_KEY"
"""


# --- what serves ------------------------------------------------------------------------------


@contextmanager
def serving(command, environment, folder, ready):
    """Runs a server; yields the address that it prints, found by the pattern `ready`, and ends it."""
    log = (folder / Path(command[0]).name).with_suffix(".log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True,
            start_new_session=True,
        )
    # One that prints nothing and does not end is killed, so that reading its stdout ends too.
    impatience = threading.Timer(START_WITHIN_S, process.kill)
    impatience.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.search(ready, line):
                break
        else:
            raise SystemExit(f"{command[0]} does not serve:\n{''.join(said)}{log.read_text(errors='replace')[-2000:]}")
        impatience.cancel()
        # It must be read on, or the server stops when the pipe is full.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found[1]
    finally:
        impatience.cancel()
        # The whole group, because the mock is a program behind a script that does not end when told to.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def mock(spec, folder):
    """The mock, answering from the API description `spec`."""
    node = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(folder))}
    program = HERE / "node_modules/.bin/steady"
    with socket.socket() as probe:  # It does not take a port of the system's choice.
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return serving([program, "--quiet", "--host", "127.0.0.1", "-p", port, *FORMATS, spec], node, folder, MOCK_READY)


def gateway(mock_url, tests, folder):
    """The gateway, with every model name that the suites use."""
    sources = [(tests / "api_resources" / file).read_text() for files in SUITES.values() for file in files]
    names = sorted({name for source in sources for name in MODEL_NAME.findall(source)})
    ends = 'endpoints = ["chat", "completions", "embeddings"]'
    models = "".join(f'\n[models."{name}"]\n{ends}\ndeployments = [{{ provider = "mock" }}]\n' for name in names)
    config = folder / "tierway.toml"
    listed = ", ".join(f'"{name}"' for name in names)
    config.write_text(CONFIG.format(mock=mock_url, models=models, names=listed), encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "PROVIDER_KEY": "sk-mock",
        "SUITE_KEY": SUITE_KEY.search((tests / "conftest.py").read_text())[1],
    }
    binary = os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway")
    return serving([binary, "serve", "--config", config], environment, folder, re.escape(READY) + r"(\S+)")


# --- one run ----------------------------------------------------------------------------------


def run(tests, base_url, report):
    """Runs the suites against `base_url`; returns what went wrong with each test, "" for nothing."""
    files = [f"tests/api_resources/{file}" for files in SUITES.values() for file in files]
    # Their own options ask for plugins that these suites do not need.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "--tb=line", f"--junit-xml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=tests.parent, env={**os.environ, "TEST_API_BASE_URL": base_url, "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=RUN_WITHIN_S,
    )
    if not report.exists():
        raise SystemExit(f"the suites did not run:\n{done.stdout[-2000:]}")
    out = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [part.get("message") or part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        # "tests.api_resources.chat.test_completions.TestCompletions"
        *module, group = case.get("classname").removeprefix("tests.api_resources.").split(".")
        out[f"/{'/'.join(module)}.py:{group}:{case.get('name')}"] = wrong[0] if wrong else ""
    return out


def suite_of(test):
    return next(name for name, files in SUITES.items() if any(test.startswith(f"/{file}:") for file in files))


def not_served(test):
    """What a test asks for that the gateway does not serve, or None."""
    return next((name for name, pattern in NOT_SERVED.items() if re.search(pattern, test.split("[")[0])), None)


# --- the comparison ---------------------------------------------------------------------------


def compare(direct, through):
    """Prints both counts of every suite; returns the tests whose difference has no reason."""
    counts, refused, odd = {suite: Counter() for suite in SUITES}, Counter(), []
    for test, wrong in direct.items():
        behind = through.get(test, "did not run")
        suite, reason = suite_of(test), not_served(test)
        if reason:
            refused[suite, reason] += 1
        else:
            counts[suite].update(tests=1, direct=not wrong, gateway=not behind)
        if wrong or (not REFUSED.search(behind) if reason else behind):
            odd.append((test, f"directly: {wrong or 'passed'}; through the gateway: {behind or 'passed'}"))
    odd += [(test, "ran only through the gateway") for test in through.keys() - direct.keys()]
    print(f"{'passed':14}{'tests':>7}{'direct':>8}{'gateway':>9}   not served, and refused as unknown")
    for suite, count in counts.items():
        reasons = ", ".join(f"{number} {reason}" for (where, reason), number in refused.items() if where == suite)
        print(f"{suite:14}{count['tests']:7}{count['direct']:8}{count['gateway']:9}   {reasons or '-'}")
    print(f"{len(odd)} tests failed, or differ without a reason")
    return odd


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the unpacked source distribution of `openai`")
    parser.add_argument("--spec", type=Path, default=HERE / "openapi.json", help="the API description that the mock answers from")
    args = parser.parse_args()
    tests = args.source.resolve() / "tests"
    with tempfile.TemporaryDirectory(prefix="tierway-suites-") as name:
        folder = Path(name)
        with mock(args.spec.resolve(), folder) as mock_url:
            direct = run(tests, mock_url, folder / "direct.xml")
            with gateway(mock_url, tests, folder) as url:
                through = run(tests, f"{url}/v1", folder / "through.xml")
    odd = compare(direct, through)
    for test, what in odd:
        print(f"{test}\n    {what[:300]}", file=sys.stderr)
    if not any(not wrong for wrong in through.values()):
        raise SystemExit("no test passed through the gateway")
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
