"""One gateway with its provider for the whole session."""

import os

import pytest
from frameworks import FRAMEWORKS
from page import Row
from stage import ProgramStage

# Gateway and provider are on loopback, so a proxy of this machine must not be used.
os.environ["NO_PROXY"] = "127.0.0.1"
#: The models of Codex and Claude Code: what they are called decides which tools these programs offer.
CODEX, CLAUDE_CODE = "gpt-5.5", "claude-code"


@pytest.fixture(scope="session")
def stage():
    programs = {framework.name: framework.dialect for framework in FRAMEWORKS}
    with ProgramStage({**programs, CODEX: "responses", CLAUDE_CODE: "messages"}) as stage:
        yield stage


@pytest.fixture(scope="session")
def rows() -> dict[str, Row]:
    """What the tests found, for the page."""
    return {}
