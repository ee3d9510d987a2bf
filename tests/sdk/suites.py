"""The test suites that come with the official Python clients of OpenAI and Anthropic, directly at a mock and through the
gateway: `make sdk-suites`.

The suites are those of the source distributions for what the gateway serves. OpenAI's mock answers from its API
description (openapi.json; another one by `--spec`), Anthropic's is the scripted provider of messages_provider.py. What
passes directly must pass through the gateway, and no body may arrive that does not arrive directly. The exceptions are
each client's `refused`: what they ask for must be refused, and every other difference is a failure.

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
from dataclasses import dataclass
from pathlib import Path

from anthropic.resources.messages.messages import DEPRECATED_MODELS
from gateway import PROJECT, READY, START_WITHIN_S
from messages_provider import MessagesProvider
from openai_mock import MockFront
from suite_requests import NAMED

HERE = Path(__file__).resolve().parent
#: The client's key in the suites; OpenAI's has blanks in it.
SUITE_KEY = re.compile(r'^api_key = "(.*)"$', re.MULTILINE)
MODEL_NAME = re.compile(r'(?:\bmodel=|\bmodel_id=|\.models(?:\.with_\w+)?\.retrieve\(\s*)"([^"]+)"')
#: A test that only tries a wrong argument (`test_path_params_…`) sends nothing.
SENDS = r".*:test_(method|raw_response|streaming_response)_"


@dataclass(frozen=True)
class Client:
    """An official client, its suites by what they are about, and what the gateway refuses of them, by reason."""

    name: str
    suites: dict[str, list[str]]
    refused: dict[str, str]
    #: What a refusal says in the client's exception.
    refusal: re.Pattern
    #: Members of the gateway's configuration.
    provider: str
    model: str = ""
    #: What is added to the mock's and the gateway's address.
    base_path: str = ""

    def suite_of(self, test: str) -> str:
        return next(name for name, files in self.suites.items() if any(test.startswith(f"/{file}:") for file in files))

    def reason(self, test: str) -> str | None:
        """Why a test is refused by the gateway, or None."""
        names = (test, test.split("[")[0])
        return next((why for why, pattern in self.refused.items() if any(re.search(pattern, name) for name in names)), None)


OPENAI = Client(
    "openai",
    {
        "chat": ["chat/test_completions.py", "chat/completions/test_messages.py"],
        "completions": ["test_completions.py"],
        "embeddings": ["test_embeddings.py"],
        "models": ["test_models.py"],
        "responses": ["test_responses.py", "responses/test_input_items.py", "responses/test_input_tokens.py"],
        "conversations": ["test_conversations.py", "conversations/test_items.py"],
    },
    {
        # It keeps no answers, and lists models without owning them.
        "stored chat completions": r"/chat/test_completions\.py" + SENDS + "(retrieve|update|list|list_with_all_params|delete)$",
        "messages of stored chat completions": r"/chat/completions/test_messages\.py" + SENDS + "(list|list_with_all_params)$",
        "deletion of models": r"/test_models\.py" + SENDS + "delete$",
        # Another key's, or nobody's: the ids of the suite were not made here.
        "responses that this key did not make": r"/test_responses\.py" + SENDS + "(retrieve|delete|cancel)",
        "input of a response that this key did not make": r"/responses/test_input_items\.py" + SENDS + "list",
        # Every item of the suite has the same id, and one that was deleted stays unknown: providers make no id twice.
        "items that were deleted before": r"/conversations/test_items\.py" + r"(?!:TestItems:.*_(?:method_delete|retrieve\w*)\[loose)"
        + SENDS + r"(retrieve|retrieve_with_all_params|delete)\[",
        "compaction": r"/test_responses\.py" + SENDS + "compact",
    },
    re.compile(r"Error code: 40[45] - "),
    'protocol = "openai"',
    'endpoints = ["chat", "completions", "embeddings", "responses"]\n',
    "/v1",
)
ANTHROPIC = Client(
    "anthropic",
    {
        "messages": ["test_messages.py"],
        "models": ["test_models.py"],
        "beta messages": ["beta/test_messages.py"],
        "beta models": ["beta/test_models.py"],
    },
    # It belongs to the provider's account, not to the key.
    {"in a container": r"/test_messages\.py" + SENDS + "create_with_all_params"},
    re.compile(r"Error code: 400 - .*'container'"),
    'protocol = "anthropic"',
)
CLIENTS = {client.name: client for client in (OPENAI, ANTHROPIC)}
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
{provider}
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


@contextmanager
def openai_mock(spec, folder):
    """The mock of OpenAI, answering from the API description `spec`; yields its address and the bodies that it gets."""
    node = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(folder))}
    program = HERE / "node_modules/.bin/steady"
    with socket.socket() as probe:  # It does not take a port of the system's choice.
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [program, "--quiet", "--host", "127.0.0.1", "-p", port, *FORMATS, spec]
    with serving(command, node, folder, MOCK_READY) as url:
        front = MockFront(url)
        try:
            yield front.url, front.bodies
        finally:
            front.close()


@contextmanager
def anthropic_mock():
    """The mock of Anthropic; yields its address and the bodies that it gets."""
    provider = MessagesProvider()
    try:
        yield provider.url, provider.bodies
    finally:
        provider.close()


def suite_key(tests):
    return SUITE_KEY.search((tests / "conftest.py").read_text())[1]


def gateway(client, mock_url, tests, folder):
    """The gateway, with every model name that the suites use."""
    sources = [(tests / "api_resources" / file).read_text() for files in client.suites.values() for file in files]
    names = sorted({name for source in sources for name in MODEL_NAME.findall(source)} | {NAMED} | set(DEPRECATED_MODELS))
    models = "".join(f'\n[models."{name}"]\n{client.model}deployments = [{{ provider = "mock" }}]\n' for name in names)
    config = folder / "tierway.toml"
    listed = ", ".join(f'"{name}"' for name in names)
    config.write_text(CONFIG.format(provider=client.provider, mock=mock_url, models=models, names=listed), encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "PROVIDER_KEY": "sk-mock",
        "SUITE_KEY": suite_key(tests),
    }
    binary = os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway")
    return serving([binary, "serve", "--config", config], environment, folder, re.escape(READY) + r"(\S+)")


# --- one run ----------------------------------------------------------------------------------


def run(client, tests, base_url, report):
    """Runs the suites against `base_url`; returns what went wrong with each test, "" for nothing."""
    files = [f"tests/api_resources/{file}" for files in client.suites.values() for file in files]
    # Their own options ask for plugins that these suites do not need.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "suite_requests", "-q", "--tb=line", f"--junit-xml={report}"]
    serving = {"TEST_API_BASE_URL": base_url, "SUITE_KEY": suite_key(tests), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=tests.parent, env={**os.environ, **serving, "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=RUN_WITHIN_S,
    )  # fmt: skip
    if not report.exists():
        raise SystemExit(f"the suites did not run:\n{done.stdout[-2000:]}")
    out = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [part.get("message") or part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        # "tests.api_resources.chat.test_completions.TestCompletions"
        *module, group = case.get("classname").removeprefix("tests.api_resources.").split(".")
        out[f"/{'/'.join(module)}.py:{group}:{case.get('name')}"] = wrong[0] if wrong else ""
    return out


# --- the comparison ---------------------------------------------------------------------------


def compare(client, direct, through):
    """Prints both counts of every suite; returns the tests whose difference has no reason."""
    counts, refused, odd = {suite: Counter() for suite in client.suites}, Counter(), []
    for test, wrong in direct.items():
        behind = through.get(test, "did not run")
        suite, reason = client.suite_of(test), client.reason(test)
        if reason:
            refused[suite, reason] += 1
        else:
            counts[suite].update(tests=1, direct=not wrong, gateway=not behind)
        if wrong or (not client.refusal.search(behind) if reason else behind):
            odd.append((test, f"directly: {wrong or 'passed'}; through the gateway: {behind or 'passed'}"))
    odd += [(test, "ran only through the gateway") for test in through.keys() - direct.keys()]
    odd += [(reason, "no test is refused for this") for reason in client.refused.keys() - {why for _, why in refused}]
    print(f"{client.name:14}{'tests':>7}{'direct':>8}{'gateway':>9}   refused, as they should be")
    for suite, count in counts.items():
        reasons = ", ".join(f"{number} {reason}" for (where, reason), number in refused.items() if where == suite)
        print(f"{suite:14}{count['tests']:7}{count['direct']:8}{count['gateway']:9}   {reasons or '-'}")
    print(f"{len(odd)} tests failed, or differ without a reason")
    return odd


def as_sent(body):
    """A body without what the gateway adds to it: it asks for the usage of a streamed chat completion."""
    return body.replace(b'"stream_options":{"include_usage":true},', b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="+", help="the unpacked source distributions of `openai` and `anthropic`")
    parser.add_argument("--spec", type=Path, default=HERE / "openapi.json", help="the API description that OpenAI's mock answers from")
    args = parser.parse_args()
    odd = []
    for source in args.sources:
        odd += run_beside(CLIENTS[source.name.rpartition("-")[0]], source.resolve() / "tests", args.spec.resolve())
    for test, what in odd:
        print(f"{test}\n    {what[:300]}", file=sys.stderr)
    return 1 if odd else 0


def run_beside(client, tests, spec):
    """Runs a client's suites directly and through the gateway; returns the tests whose difference has no reason."""
    with tempfile.TemporaryDirectory(prefix="tierway-suites-") as name:
        folder = Path(name)
        with openai_mock(spec, folder) if client is OPENAI else anthropic_mock() as (mock_url, bodies):
            direct = run(client, tests, mock_url, folder / "direct.xml")
            arrived = Counter(map(as_sent, bodies))
            with gateway(client, mock_url, tests, folder) as url:
                through = run(client, tests, url + client.base_path, folder / "through.xml")
            print(f"{arrived.total()} bodies arrived directly, {len(bodies) - arrived.total()} through the gateway")
            if strange := Counter(map(as_sent, bodies)) - arrived - arrived:
                raise SystemExit(f"arrived through the gateway only: {next(iter(strange))[:300]}")
    if not any(not wrong for wrong in through.values()):
        raise SystemExit("no test passed through the gateway")
    return compare(client, direct, through)


if __name__ == "__main__":
    sys.exit(main())
