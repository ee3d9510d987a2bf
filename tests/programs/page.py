"""docs/programs.md, from how the programs did."""

from dataclasses import dataclass

from frameworks import FRAMEWORKS, HERE, snippet

PAGE = HERE.parents[1] / "docs/programs.md"
YES = "as directly"


@dataclass
class Row:
    """How a program did."""

    version: str
    whole: str
    streamed: str
    #: What it does where a stream breaks off, and where a whole answer does.
    broken: str
    #: Its name, dialect and connection where it is no framework.
    title: str = ""
    dialect: str = ""
    connection: str = ""


CODEX_REMARK = """
These are lines of `~/.codex/config.toml`; `model` there, or `--model`, names a model that serves `responses`. Any name will do,
and Codex offers the tools that it knows the name to use (`apply_patch` for OpenAI's). It also offers `web_search`, which
passes. Where a budget or credit pays, the request is refused, because what a search costs is not known:
`web_search = "disabled"`, in front of these lines, leaves it out. A stream that breaks off it asks for again as often as
`stream_max_retries` says. Headers of its own (`session-id`, `originator`, `x-codex-…`) are not passed on; the body has the
same (`prompt_cache_key`, `client_metadata`).
"""
CLAUDE_CODE_REMARK = """
`ANTHROPIC_MODEL` or `--model` names a model whose provider speaks Messages. What Claude Code sends with it, its betas among
it, passes as it came, and `/context` is counted by the provider. Where an answer breaks off it asks for the rest, or for the
whole answer without a stream, and shows an error where that breaks off too.
"""


def page(rows: dict[str, Row]) -> str:
    """The page; `rows` by the programs' names."""
    table, sections = [], []
    for name in ("codex", "claude-code"):
        row = rows[name]
        table.append([row.title, row.version, row.dialect, row.whole, row.streamed, row.broken])
        remark = CODEX_REMARK if name == "codex" else CLAUDE_CODE_REMARK
        language = "toml" if name == "codex" else "sh"
        sections.append(f"## {row.title}\n\n```{language}\n{row.connection.strip()}\n```\n{remark}")
    for framework in FRAMEWORKS:
        row = rows[framework.name]
        table.append([framework.title, row.version, framework.dialect.capitalize(), row.whole, row.streamed, row.broken])
        language = "js" if framework.script.endswith(".mjs") else "python"
        sections.append(f"## {framework.title}\n\n```{language}\n{snippet(framework.script)}\n```\n")
    lines = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return f"""# Programs that speak Responses or Messages

Written by `make programs UPDATE_DOCS=1`; nothing here is written by hand, and `make programs` fails where it is not so.
Each program does a task with two tools, one after the other, thinking before each: at a scripted provider itself, and
through the gateway. *As directly*: the same answer, and every body arrived byte for byte. *Where it breaks off*: what the
program raises or does where the provider's connection ends by RST, by FIN or as if all had been sent, within the arguments
of a tool or within the text, and within a whole answer. None of them makes half a call or takes half an answer for a whole one.

| program | version | dialect | whole | streamed | where it breaks off |
|---|---|---|---|---|---|
{lines}

How each is connected; `url` is the gateway's address, without a path, and `KEY` a key of it. Where retries are off, that is so
that what breaks off is seen:

{chr(10).join(sections)}
Frameworks that speak chat are in [clients](clients.md), and what of Responses is not served in [responses](responses.md).
"""
