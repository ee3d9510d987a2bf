"""Codex and Claude Code do a task with two tools as at the provider itself, and never take half an answer for a whole one.

They run without a terminal, in a folder and with a home of their own, and reach nothing but loopback.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import CLAUDE_CODE, CODEX
from page import YES, Row
from scripted import CLAUDE_CODE_TASK, SCENES, WRITTEN
from stage import PAID

MODULES = Path(__file__).resolve().parent / "node_modules"
RUN_WITHIN_S = 60
QUESTION = "What stands by itself?"
#: What is not on loopback is asked of a proxy that does not exist.
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
TURNS = 3
#: Of the gateway, in what is shown.
ADDRESS = "http://127.0.0.1:8080"
STREAMS_BROKEN = [scene for scene in SCENES if scene.partition("-")[0] in ("tool", "text")]

#: What a person sets, of each.
CODEX_SHOWN = """
model_provider = "tierway"

[model_providers.tierway]
name = "Tierway"
base_url = "{url}/v1"
env_key = "TIERWAY_KEY"
wire_api = "responses"
"""
CODEX_CONFIG = f"""
check_for_update_on_startup = false
{CODEX_SHOWN}
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false
"""
CLAUDE_CODE_SHOWN = """
export ANTHROPIC_BASE_URL={url}
export ANTHROPIC_API_KEY=sk-…
export ANTHROPIC_MODEL=claude-…
"""
CLAUDE_CODE_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}


@dataclass
class Ran:
    """How a program ended, and what it left."""

    code: int
    #: What it printed, each line an object.
    events: list[dict]
    errors: str
    files: dict[str, str] = field(default_factory=dict)


def run(command, environment, folder: Path) -> Ran:
    work = folder / "work"
    work.mkdir()
    (work / "question.txt").write_text(QUESTION, encoding="utf-8")
    done = subprocess.run(
        [str(part) for part in command], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **NO_NETWORK, **environment}, timeout=RUN_WITHIN_S, check=False,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert events, done.stderr[-3000:]
    files = {path.name: path.read_text(encoding="utf-8").strip() for path in work.iterdir()}
    return Ran(done.returncode, events, done.stderr, files)


def codex(url: str, key: str, scene: str, folder: Path, more: str = "") -> Ran:
    """Codex; `more` is put in front of its configuration."""
    home = folder / ".codex"
    home.mkdir()
    (home / "config.toml").write_text(more + CODEX_CONFIG.format(url=url), encoding="utf-8")
    # The folder is a temporary one, and what it is told to do is known.
    options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--model", f"{CODEX}/{scene}"]
    command = ["node", MODULES / "@openai/codex/bin/codex.js", "exec", *options, "Do the task."]
    return run(command, {"CODEX_HOME": str(home), "TIERWAY_KEY": key}, folder)


def claude_code(url: str, key: str, scene: str, folder: Path, prompt: str = "Do the task.") -> Ran:
    options = ["--output-format", "json", "--allowedTools", "Bash,Write", "--model", f"{CLAUDE_CODE}/{scene}"]
    # Not `bin/claude.exe`: that is made by a script at installation, which npm may have left out.
    command = ["node", MODULES / "@anthropic-ai/claude-code/cli-wrapper.cjs", "-p", prompt, *options]
    connect = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": key}
    return run(command, {**connect, **CLAUDE_CODE_QUIET}, folder)


def version(package: str) -> str:
    return json.loads((MODULES / package / "package.json").read_text(encoding="utf-8"))["version"]


def kinds(events: list[dict]) -> list[tuple]:
    """What a run of Codex did."""
    return [(event["type"], event.get("item", {}).get("type")) for event in events]


def bodies_arrive(stage, model: str) -> list:
    """Checks that every body arrives as it was sent; returns the requests as they were sent."""
    sent = stage.tap.requests(model)
    assert len(sent) >= TURNS
    arrived = [visit.body for visit in stage.provider.journal.of(model)]
    for visit in sent:
        assert visit.body in arrived
    return sent


def test_codex_does_the_task(stage, rows, tmp_path):
    (tmp_path / "direct").mkdir()
    direct = codex(stage.provider.url, "sk-direct", "good", tmp_path / "direct")
    (tmp_path / "through").mkdir()
    through = codex(stage.tap.url, stage.key, "good", tmp_path / "through")
    assert (through.code, through.files["answer.txt"]) == (direct.code, direct.files["answer.txt"]) == (0, WRITTEN)
    assert kinds(through.events) == kinds(direct.events)
    answer = [event["item"]["text"] for event in through.events if event.get("item", {}).get("type") == "agent_message"]
    assert len(answer) == 1 and QUESTION in answer[0] and answer[0].startswith("The tools said:")
    assert through.events[-1]["usage"] == direct.events[-1]["usage"]
    sent = bodies_arrive(stage, f"{CODEX}/good")
    assert len(sent) == TURNS
    tools = {tool["type"] for tool in sent[0].json["tools"]}
    print(f"first body {len(sent[0].body)} bytes, tools {sorted(tools)}")
    assert {"function", "custom", "web_search"} <= tools
    arrived = stage.provider.journal.of(f"{CODEX}/good")[-1].headers
    assert arrived["authorization"] == f"Bearer {stage.provider_key}"
    assert {"session-id", "x-codex-turn-metadata"} <= sent[-1].headers.keys() - arrived.keys(), "headers of its own stay here"
    rows["codex"] = Row(
        version("@openai/codex"), "it always streams", YES, "`turn.failed`, and exit code 1", "Codex", "Responses",
        CODEX_SHOWN.format(url=ADDRESS),
    )  # fmt: skip


@pytest.mark.parametrize("scene", STREAMS_BROKEN)
def test_codex_notices_a_stream_that_breaks(stage, tmp_path, scene):
    ran = codex(stage.url, stage.key, scene, tmp_path)
    print(ran.code, ran.events[-1])
    assert ran.code != 0
    assert ran.events[-1]["type"] == "turn.failed"
    # Of the two signs, the event and the transport, it tells the one that comes last.
    assert "stream disconnected before completion" in ran.events[-1]["error"]["message"]
    if scene.startswith("tool"):
        assert "command_execution" not in [kind for _, kind in kinds(ran.events)], "half a call is not made"


def test_codex_is_paid_from_a_budget_once_it_does_not_offer_to_search(stage, tmp_path):
    """What a search costs is not known."""
    (tmp_path / "searches").mkdir()
    refused = codex(stage.url, stage.paid_key, PAID, tmp_path / "searches")
    assert refused.code != 0 and "(here 'web_search')" in refused.events[-1]["error"]["message"]
    assert not stage.provider.journal.of(f"{CODEX}/{PAID}")
    (tmp_path / "paid").mkdir()
    paid = codex(stage.url, stage.paid_key, PAID, tmp_path / "paid", 'web_search = "disabled"\n')
    assert (paid.code, paid.files["answer.txt"]) == (0, WRITTEN)


def test_claude_code_is_paid_from_a_budget(stage, tmp_path):
    ran = claude_code(stage.url, stage.paid_key, PAID, tmp_path)
    assert (ran.code, ran.files["answer.txt"]) == (0, WRITTEN)


def test_claude_code_does_the_task(stage, rows, tmp_path):
    (tmp_path / "direct").mkdir()
    direct = claude_code(stage.provider.url, "sk-direct", "good", tmp_path / "direct")
    (tmp_path / "through").mkdir()
    through = claude_code(stage.tap.url, stage.key, "good", tmp_path / "through")
    for ran in (direct, through):
        [result] = ran.events
        assert (ran.code, result["is_error"], result["num_turns"], ran.files["answer.txt"]) == (0, False, TURNS, WRITTEN)
        assert result["result"].startswith(f"The tools said: {QUESTION} and ")
    assert through.events[0]["usage"] == direct.events[0]["usage"]
    sent = bodies_arrive(stage, f"{CLAUDE_CODE}/good")
    arrived = {visit.body: visit for visit in stage.provider.journal.of(f"{CLAUDE_CODE}/good")}
    for visit in sent:
        there = arrived[visit.body]
        for name in ("anthropic-version", "anthropic-beta"):
            assert there.headers[name] == visit.headers[name]
        assert (there.path, there.headers["x-api-key"]) == (visit.path, stage.provider_key)
    rows["claude-code"] = Row(
        version("@anthropic-ai/claude-code"), "only where a stream broke off", YES, "asks again, then `API Error` and exit code 1",
        "Claude Code", "Messages", CLAUDE_CODE_SHOWN.format(url=ADDRESS),
    )  # fmt: skip
    print(f"first body {len(sent[0].body)} bytes, {sent[0].path}, anthropic-beta {sent[0].headers['anthropic-beta']}")


def test_claude_code_counts_its_context(stage, tmp_path):
    (tmp_path / "direct").mkdir()
    direct = claude_code(stage.provider.url, "sk-direct", "good", tmp_path / "direct", "/context")
    (tmp_path / "through").mkdir()
    through = claude_code(stage.url, stage.key, "good", tmp_path / "through", "/context")
    counted = [visit for visit in stage.provider.journal.of(f"{CLAUDE_CODE}/good") if "count_tokens" in visit.path]
    assert len(counted) > TURNS and "**Tokens:**" in through.events[0]["result"]
    assert through.events[0]["result"] == direct.events[0]["result"]


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "good"])
def test_claude_code_notices_what_breaks(stage, tmp_path, scene):
    """It asks again, for the rest of a stream or for a whole answer, and says so where that breaks too. Which of these it
    does follows from which sign reaches it first, the event or the end of the connection."""
    ran = claude_code(stage.url, stage.key, scene, tmp_path)
    [result] = ran.events
    asked = stage.provider.journal.of(f"{CLAUDE_CODE}/{scene}")
    print(f"{[visit.json.get('stream', False) for visit in asked]}: {result['result']}")
    assert (ran.code != 0) == result["is_error"]
    if result["is_error"]:
        assert "API Error" in result["result"]
    else:
        assert not scene.startswith("whole")
        assert ran.files["answer.txt"] == WRITTEN and result["result"].endswith(" back).")
        assert len(asked) > TURNS, "a break that it did not notice"
    calls = [
        part["input"]
        for visit in asked
        for message in visit.json["messages"]
        for part in message["content"]
        if isinstance(part, dict) and part["type"] == "tool_use"
    ]
    assert all(call in [tool.arguments for tool in CLAUDE_CODE_TASK] for call in calls), "half a call is not made"
