"""The frameworks and SDKs that do the task, and what runs them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUN_WITHIN_S = 120
#: Nothing is sent or fetched but what is asked of the gateway.
QUIET = {"DO_NOT_TRACK": "1", "OTEL_SDK_DISABLED": "true", "OPENAI_AGENTS_DISABLE_TRACING": "1", "NO_PROXY": "127.0.0.1"}


SNIPPET = re.compile(r"^(?:#|//) \[connect\]\n(.*?)^(?:#|//) \[end\]\n", re.MULTILINE | re.DOTALL)


def snippet(script: str) -> str:
    """How a program is connected: the lines of its script itself, so that what is shown is what ran."""
    return SNIPPET.search((HERE / script).read_text(encoding="utf-8"))[1].strip()


@dataclass(frozen=True)
class Framework:
    """A program that is a script: `with_NAME.py` or `.mjs`."""

    title: str
    script: str
    dialect: str

    @property
    def name(self) -> str:
        """What its models are called."""
        return self.script.removeprefix("with_").replace(".", "-").replace("_", "-")

    def run(self, cases: list[dict], key: str) -> dict:
        """How each of the cases went, and the framework's version."""
        command = ["node" if self.script.endswith(".mjs") else sys.executable, self.script, json.dumps(cases)]
        done = subprocess.run(
            command, cwd=HERE, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PROGRAM_KEY": key, **QUIET},
            capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.script} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])


FRAMEWORKS = [
    Framework("OpenAI Agents SDK, Python", "with_openai_agents.py", "responses"),
    Framework("OpenAI Agents SDK, JavaScript", "with_openai_agents.mjs", "responses"),
    Framework("Vercel AI SDK, `@ai-sdk/openai`", "with_ai_sdk.mjs", "responses"),
    Framework("Pydantic AI", "with_pydantic_ai.py", "responses"),
    Framework("LangChain, Python, `use_responses_api=True`", "with_langchain.py", "responses"),
    Framework("Anthropic SDK, Python", "with_anthropic.py", "messages"),
    Framework("Anthropic SDK, TypeScript", "with_anthropic.mjs", "messages"),
]
