"""Popular frameworks against the demo, each with whole answers, streams, tools and structured output: `make clients`.

Every framework is a script of its own (`with_*.py`, `node/with_*.mjs`), because they set up their process as they like.
What it is asked is in `checks.py`. With all of them this writes docs/clients.md; `clients.py NAME …` runs the scripts
whose name holds one of the words, and writes nothing.

It must never say that a framework works which did not run: an error, and a script that prints no result, is in the table.

Start reading in `FRAMEWORKS` and `main`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
START_WITHIN_S, STOP_WITHIN_S, SCRIPT_WITHIN_S = 30, 10, 180
METHODS = ("whole", "stream", "tools", "structured")
URL = re.compile(r"^listening on (\S+)")
KEY = re.compile(r"^export OPENAI_API_KEY=(\S+)", re.MULTILINE)
SNIPPET = re.compile(r"^(?:#|//) \[connect\]\n(.*?)^(?:#|//) \[end\]\n", re.MULTILINE | re.DOTALL)
#: Nothing is sent or fetched but what is asked of the demo.
QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "NO_PROXY": "127.0.0.1",
    "OTEL_SDK_DISABLED": "true",
}
PYTHON, OPENAI2, NODE = HERE / ".venv/bin/python", HERE / "openai2/.venv/bin/python", "node"


@dataclass(frozen=True)
class Framework:
    """A row of the table, and what runs it."""

    title: str
    script: str
    runs: Path | str
    remark: str = ""

    @property
    def path(self) -> Path:
        return HERE / self.script

    @property
    def snippet(self) -> str:
        """How it is connected: the lines of the script itself, so that what is shown is what ran."""
        return SNIPPET.search(self.path.read_text(encoding="utf-8"))[1].strip()

    @property
    def language(self) -> str:
        return "js" if self.runs == NODE else "python"


FRAMEWORKS = [
    Framework("LangChain, Python", "with_langchain.py", PYTHON, "`stream_usage=True` for the tokens of a stream: it does not ask another host than OpenAI's for them by itself."),
    Framework("LangChain, JavaScript", "node/with_langchain.mjs", NODE),
    Framework("LlamaIndex", "with_llama_index.py", OPENAI2, "`OpenAILike`: its class `OpenAI` takes only the names of OpenAI's own models."),
    Framework("Vercel AI SDK", "node/with_ai_sdk.mjs", NODE, "`supportsStructuredOutputs`, or it leaves the schema out. `includeUsage: true` for the tokens of a stream."),
    Framework("Instructor", "with_instructor.py", OPENAI2, "Its streams are of an object that grows."),
    Framework("Pydantic AI", "with_pydantic_ai.py", PYTHON, "`OpenAIChatModel`; the name `openai:` alone is the Responses API."),
    Framework("LiteLLM", "with_litellm.py", PYTHON, "`openai/` before the model's name stands for the protocol."),
    Framework("DSPy", "with_dspy.py", PYTHON, "Its `JSONAdapter` asks a model that it does not know by name for JSON, without the schema."),
    Framework("Haystack", "with_haystack.py", PYTHON),
    Framework("Semantic Kernel", "with_semantic_kernel.py", PYTHON, "The client is made beforehand, because it takes no base URL itself."),
    Framework("smolagents", "with_smolagents.py", PYTHON),
    Framework("OpenAI Agents SDK", "with_openai_agents.py", PYTHON, "`OpenAIChatCompletionsModel`: its default is the Responses API. Turn tracing off: it goes to OpenAI."),
    Framework("AutoGen", "with_autogen.py", PYTHON, "`model_info` is required with a model name of your own."),
    Framework("Agno", "with_agno.py", PYTHON, "`OpenAILike`: its class `OpenAIChat` uses roles that only OpenAI knows."),
    Framework("Strands Agents", "with_strands.py", OPENAI2, "Structured output is a tool that it names in `tool_choice`."),
]


# --- the demo ---------------------------------------------------------------------------------


@contextmanager
def demo(folder):
    """Runs the demo as `tierway serve` does without a file; yields the variables that it says to export."""
    log = folder / "demo.log"
    environment = {"PATH": os.environ["PATH"], "TIERWAY__SERVER__LISTEN": "127.0.0.1:0"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway"), "serve"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True,
        )
    # One that prints nothing and does not end is killed, so that reading its stdout ends too.
    impatience = threading.Timer(START_WITHIN_S, process.kill)
    impatience.start()
    try:
        url = next((found[1] for line in process.stdout if (found := URL.match(line))), None)
        impatience.cancel()
        if url is None:
            raise SystemExit(f"the demo did not start\n{log.read_text(errors='replace')[-2000:]}")
        key = KEY.search(log.read_text(encoding="utf-8"))
        yield {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key[1]}
    finally:
        impatience.cancel()
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- one framework ----------------------------------------------------------------------------


def run(framework, variables, folder):
    """Runs a framework's script; returns its version, and for each method "yes" or why not, and what it wrote when it failed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **QUIET, **variables}
    try:
        done = subprocess.run(
            [framework.runs, framework.path], cwd=folder, env=environment, capture_output=True, text=True, timeout=SCRIPT_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return {"version": "–", **dict.fromkeys(METHODS, f"no end within {SCRIPT_WITHIN_S} s")}, "killed"
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"version": "–", **dict.fromkeys(METHODS, f"did not run (exit {done.returncode})")}, done.stderr or "no result"
    return result, (done.stderr or "failed") if done.returncode else ""


# --- the page ---------------------------------------------------------------------------------


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def page(results):
    rows = []
    for framework, result in results:
        cells = [framework.title, result["version"], *(result[method] for method in METHODS), framework.remark]
        rows.append("| " + " | ".join(map(cell, cells)) + " |")
    snippets = [f"## {framework.title}\n\n```{framework.language}\n{framework.snippet}\n```\n" for framework, _ in results]
    return f"""# Frameworks

Written by `make clients`; nothing here is written by hand. Each framework runs against the demo (`tierway serve`
without a file) with the base URL and the key that it prints. *Whole*: an answer with text. *Stream*: an answer in more
than one piece. *Tools*: a call of a function, its arguments read by the framework. *Structured*: an object with the
members and types of a schema.

| framework | version | whole | stream | tools | structured | remark |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Frameworks that speak OpenAI's Responses or Anthropic's Messages, Codex and Claude Code are in [programs](programs.md). The
official clients have tests of their own (`make sdk`), and OpenAI's and Anthropic's own test suites for their Python clients run
directly and through the gateway (`make sdk-suites`).

Every framework needs the same two things: a base URL that ends in `/v1`, and a key. `auto` is the demo's alias; any
model, tier or alias that the key may use stands in its place. These are the lines of the scripts that were run:

{chr(10).join(snippets)}
## To repeat it

`make clients` installs the pinned versions (tests/clients/requirements.txt, openai2/requirements.txt,
node/package-lock.json), runs every script and writes this page. `make clients ONLY="haystack"` runs some and writes nothing.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="parts of the scripts' names; all without")
    parser.add_argument("--page", type=Path, default=PROJECT / "docs/clients.md", help="where to write the page")
    args = parser.parse_args()
    chosen = [each for each in FRAMEWORKS if not args.only or any(word in each.script for word in args.only)]
    results, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="tierway-clients-") as name:
        with demo(Path(name)) as variables:
            for framework in chosen:
                result, stderr = run(framework, variables, Path(name))
                results.append((framework, result))
                print(f"{framework.title:24}{result['version']:10}" + "  ".join(f"{each}: {result[each]}" for each in METHODS), flush=True)
                if stderr:
                    failed += 1
                    print(stderr[-3000:], file=sys.stderr, flush=True)
    if not args.only:
        args.page.write_text(page(results), encoding="utf-8")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
