"""Requests of the official Python client at a fixed rate: run by the interpreter of tests/sdk/.venv.

Every client is `AsyncOpenAI` as an application would write it: only its address, key and timeout are set, and
`max_retries` where a load names it.
A request has failed when the application would have seen an exception; the client's own retries are counted
beside it. The argument is the load as JSON. A line on stdout says that everything is ready; a line on stdin is the Unix time
at which to begin; at the end stdout has a line for each request.

It must never retry, repair or drop a request itself, and never wait for one before it sends the next.

Start reading in `main`.
"""

import asyncio
import gc
import json
import sys
import time
from contextvars import ContextVar

from openai import APIStatusError, AsyncOpenAI

#: Seconds after which a request that the client does not give up itself counts as failed.
PATIENCE = 300

#: How often the current request was sent, in a list of one number: the client's hook runs in the request's context.
SENDS = ContextVar("sends")


class CountingClient(AsyncOpenAI):
    """Counts what is sent; the hook is meant for that and changes nothing."""

    async def _prepare_request(self, request):
        SENDS.get()[0] += 1


async def main():
    load = json.loads(sys.argv[1])
    clients = [
        (target["name"], timeout, mode, client_of(load, target, timeout))
        for target in load["targets"] for timeout in load["timeouts"] for mode in load["modes"]
    ]
    gc.freeze()
    print("ready", flush=True)
    begins, step = float(sys.stdin.readline()), 1 / load["per_second"]
    tasks = []
    for number in range(round(load["seconds"] * load["per_second"])):
        due = begins + number * step
        await asyncio.sleep(max(0, due - time.time()))
        tasks.append(asyncio.create_task(one(load, number // len(clients), clients[number % len(clients)], due, begins)))
    for seen in await asyncio.gather(*tasks):
        print(json.dumps(seen))


def client_of(load, target, timeout):
    kept = {"max_retries": load["max_retries"]} if "max_retries" in load else {}
    return CountingClient(base_url=target["base_url"], api_key=target["key"], timeout=timeout, **kept)


async def one(load, seed, chosen, due, begins):
    target, timeout, mode, client = chosen
    SENDS.set([0])
    seen = {"target": target, "timeout": timeout, "mode": mode, "due_s": round(due - begins, 4),
            "late_ms": round((time.time() - due) * 1000, 1), "first_ms": None, "attempts": None, "deployment": None,
            "error": None, "status": None}
    try:
        async with asyncio.timeout(PATIENCE):
            seen["outcome"] = await ask(load, seed, client, mode, due, seen)
    except Exception as error:  # whatever an application would see
        seen["outcome"] = "failed" if seen["first_ms"] is None else "cut"
        seen["error"] = f"{type(error).__name__}: {error}"[:300]
        if isinstance(error, APIStatusError):
            seen["status"] = error.status_code
            note_headers(seen, error.response.headers)
    seen["end_ms"] = round((time.time() - due) * 1000, 1)
    seen["sends"] = SENDS.get()[0]
    return seen


async def ask(load, seed, client, mode, due, seen):
    """How the request ended; a failure is raised. Every target is sent the same seeds."""
    messages = [{"role": "user", "content": "Say something."}]
    call = {"model": load["model"], "max_tokens": load["tokens"], "seed": seed, "messages": messages}
    raw = await client.chat.completions.with_raw_response.create(**call, **({"stream": True} if mode == "streamed" else {}))
    note_headers(seen, raw.headers)
    answer = raw.parse()
    if mode == "whole":
        seen["first_ms"] = round((time.time() - due) * 1000, 1)
        choice = answer.choices[0]
        return end_of(load, choice.finish_reason == "stop", choice.message.content)
    finished, text = False, ""
    async for chunk in answer:
        for choice in chunk.choices:
            if choice.delta.content and seen["first_ms"] is None:
                seen["first_ms"] = round((time.time() - due) * 1000, 1)
            text += choice.delta.content or ""
            finished = finished or choice.finish_reason == "stop"
    return end_of(load, finished, text)


def end_of(load, finished, text):
    """How an answer ended that the client takes for whole: every provider says one word for each token."""
    return "served" if finished and text == "tok " * load["tokens"] else "passed off as whole"


def note_headers(seen, headers):
    attempts = headers.get("x-tierway-attempts")
    seen["attempts"] = int(attempts) if attempts else None
    seen["deployment"] = headers.get("x-tierway-deployment")


if __name__ == "__main__":
    asyncio.run(main())
