"""The official Python and Node clients as judges: what each gets of an answer, asked directly or through the gateway.

As a command it computes what they get directly of every case (or of those named) and compares it with the files:
`judge.py [--write] [CASE …]`. With `--write` the files are corrected, and an `[answer]` that no file has yet is
taken from a client that got a whole one.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import openai
from case import MODES, Case, load_all
from gateway import KEY
from provider import Provider, Reply
from verdict import Got, read_stream, read_whole

AT_ONCE = 8
# How long a client waits for what is held open, and for everything else.
HELD_S, PATIENCE_S = 1.5, 20.0


@dataclass
class Job:
    """One request of one case."""

    case: Case
    mode: str
    base_url: str
    plan: str = "whole"
    # Through the gateway even a held connection ends.
    may_hang: bool = True

    @property
    def within_s(self) -> float:
        return HELD_S if self.case.held and self.may_hang else PATIENCE_S


def ask_python(jobs: list[Job]) -> list[Got]:
    # A connection for each request: what ends one in some way must not touch the next.
    limits = httpx2.Limits(max_keepalive_connections=0)
    with openai.DefaultHttpxClient(verify=False, trust_env=False, limits=limits) as http, ThreadPoolExecutor(AT_ONCE) as pool:
        client = openai.OpenAI(base_url="http://unset", api_key=KEY, max_retries=0, http_client=http)
        return list(pool.map(partial(_ask_python, client), jobs))


def _ask_python(client: openai.OpenAI, job: Job) -> Got:
    client = client.with_options(base_url=job.base_url, timeout=job.within_s)
    api = {"chat": client.chat.completions, "completions": client.completions, "embeddings": client.embeddings}[job.case.endpoint]
    options = job.case.options(job.mode)
    known = {"model", "messages", "prompt", "input", "encoding_format", "stream", "stream_options", "n"}
    extra = {name: options.pop(name) for name in set(options) - known}
    parts, error, detail = [], "", ""
    try:
        answer = api.create(**options, extra_body={**extra, "user": job.plan})
        for part in answer if job.mode == "stream" else [answer]:
            parts.append(part.to_dict(warnings=False) if isinstance(part, openai.BaseModel) else part)
    except openai.APITimeoutError:
        error = "hang"
    except Exception as raised:  # whatever an application would have to catch
        error, detail = type(raised).__name__, str(raised)[:300]
    return _got(job, parts, error, detail)


def ask_node(jobs: list[Job]) -> list[Got]:
    lines = [
        {
            "id": at,
            "baseURL": job.base_url,
            "endpoint": job.case.endpoint,
            "options": job.case.options(job.mode),
            "user": job.plan,
            "withinMs": int(job.within_s * 1000),
        }
        for at, job in enumerate(jobs)
    ]
    run = subprocess.run(
        ["node", Path(__file__).with_name("judge.mjs")],
        input="".join(json.dumps(line) + "\n" for line in lines),
        env={**os.environ, "CORPUS_KEY": KEY, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    results = {result["id"]: result for result in map(json.loads, run.stdout.rstrip("\n").split("\n"))}
    return [_got(job, **{name: results[at].get(name) for name in ("parts", "error", "detail")}) for at, job in enumerate(jobs)]


def _got(job: Job, parts: list, error: str, detail: str) -> Got:
    got = Got.of(parts, job.mode, job.case.asks_usage(job.mode), job.case.n(job.mode))
    if error == "hang":
        return Got("hang", got.choices)
    return Got("error", got.choices, got.usage, error, detail) if error else got


def direct(cases: list[Case], provider_url: str) -> dict[tuple[str, str], dict[str, Got]]:
    """What each client gets of each case and mode from the host itself."""
    jobs = [Job(case, mode, f"{provider_url}/{case.name}/v1") for case in cases for mode in case.modes]
    both = zip(jobs, ask_python(jobs), ask_node(jobs))
    return {(job.case.name, job.mode): {"python": python, "node": node} for job, python, node in both}


def serve(cases: list[Case]) -> Provider:
    replies = {case.name: Reply.of(case) for case in cases}
    return Provider(lambda name, plan: replies[name])


def find_answer(case: Case, found) -> dict:
    """The answer as a client got it that got all of it, the stricter one first; else as a lenient reader does."""
    for mode in MODES:
        for reader in ("node", "python"):
            got = found[case.name, mode][reader] if mode in case.modes else None
            if got is not None and got.ends == "answer":
                return {"choices": got.choices, **({"usage": got.usage} if got.usage else {})}
    got = read_whole(case.plain_bytes())
    got = read_stream(case.plain_bytes(), True) if got.ends != "answer" else got
    return {"choices": got.choices, **({"usage": got.usage} if got.usage and case.request.get("usage") else {})} if got.ends == "answer" else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="correct the files")
    parser.add_argument("case", nargs="*")
    asked = parser.parse_args()
    cases = [case for case in load_all() if not asked.case or case.name in asked.case]
    provider = serve(cases)
    found = direct(cases, provider.url)
    provider.close()
    differ = 0
    for case in cases:
        if asked.write and not case.answer:
            case.answer = find_answer(case, found)
        for mode in case.modes:
            for reader, got in found[case.name, mode].items():
                now, before = got.verdict(case.answer), case.verdicts(mode).get(reader)
                if now != before:
                    differ += 1
                    print(f"{case.name} {mode}: {reader} gets {now!r}, not {before!r}  {got.detail}")
                    case.verdicts(mode)[reader] = now
        if asked.write:
            case.save()
    print(f"{len(cases)} cases, {differ} verdicts {'corrected' if asked.write else 'differ'}")
    return int(bool(differ) and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
