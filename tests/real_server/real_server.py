"""llama-server with two slots behind the gateway, and directly beside it in the same run: `make real-server`.

Eight users stream at once, so that six of them wait for a slot: a server that is slow and alive. Then one user sends
an image to this text model again and again while seven go on. A second llama-server is the fallback tier: what it
serves of the eight users has left a deployment that was alive. Everything has default settings: gateway, official
client, and the server but for its slots and one thread.

It must never let one user's failure pass as another's: every user has a key of its own.

Writes docs/real-server.md; start reading in `main`. Run it by the interpreter of tests/sdk/.venv.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path

from openai import APIError, AsyncOpenAI

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))

import outage_stage  # noqa: E402
import real_server_page  # noqa: E402
from outage_stage import CORES, build_of, provider_section  # noqa: E402
from processes import SECRETS, Server, free_port, machine, say  # noqa: E402

USERS, SLOTS = 8, 2
PIXEL = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
#: What is asked for through the gateway: with a fallback, and without any other provider.
GATEWAY_MODELS = {"gateway": "default", "gateway, lone deployment": "alone"}
#: Seconds in which a server that is alive may begin no answer before the fallback is asked as well.
PATIENCE = 10
#: How much later than directly the last first token may come, as a share.
LATER = 0.15
#: Between two images of the user who sends them.
IMAGE_PAUSE = 0.2

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"
{providers}
[models.tiny]
deployments = [{{ provider = "local" }}]

[models.alone]
deployments = [{{ provider = "local", upstream_model = "tiny" }}]

[models.spare]
deployments = [{{ provider = "spare", upstream_model = "tiny" }}]

[tiers.default]
models = ["tiny"]
then = ["fallback"]

[tiers.fallback]
models = ["spare"]

[policies.user]
tiers = ["*"]
models = ["*"]
"""

SENDS = ContextVar("sends")


class CountingClient(AsyncOpenAI):
    """Counts what is sent; the hook is meant for that and changes nothing."""

    async def _prepare_request(self, request):
        SENDS.get()[0] += 1


# --- one request ------------------------------------------------------------------------------


async def stream(client, model, tokens):
    """One streamed answer, as its user saw it."""
    SENDS.set([0])
    begun = time.monotonic()
    seen = {"outcome": None, "head_s": None, "first_s": None, "tokens": 0, "deployment": None, "error": None}
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, max_tokens=tokens, temperature=0, stream=True, messages=[{"role": "user", "content": "Say something."}])
        seen["head_s"] = time.monotonic() - begun
        seen["deployment"] = raw.headers.get("x-tierway-deployment")
        finished = False
        async for chunk in raw.parse():
            for choice in chunk.choices:
                if choice.delta.content:
                    seen["tokens"] += 1
                    seen["first_s"] = seen["first_s"] or time.monotonic() - begun
                finished = finished or choice.finish_reason is not None
        seen["outcome"] = "served" if finished else "passed off as whole"
    except Exception as error:  # whatever an application would see
        seen["outcome"] = "failed" if seen["first_s"] is None else "cut"
        seen["error"] = f"{type(error).__name__}: {error}"[:300]
    return {**seen, "end_s": time.monotonic() - begun, "sends": SENDS.get()[0]}


async def send_image(client, model):
    """One request that this model cannot serve, and what its user can read."""
    SENDS.set([0])
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    try:
        await client.chat.completions.create(model=model, max_tokens=5, messages=[{"role": "user", "content": content}])
        error = "it was served"
    except APIError as caught:
        error = f"{type(caught).__name__} {getattr(caught, 'status_code', '')}: {caught.message}"[:300]
    return {"error": error, "sends": SENDS.get()[0]}


# --- parts ------------------------------------------------------------------------------------


async def calibrate(url, tokens=200):
    """Seconds for each token of one of two streams at a time."""
    for _ in range(2):  # the first time includes what is done once
        seen = await asyncio.gather(*(stream(counting(url, "none"), "tiny", tokens) for _ in range(SLOTS)))
        if any(one["outcome"] != "served" for one in seen):
            raise SystemExit(f"the server does not serve: {seen}")
    return max(one["end_s"] for one in seen) / tokens


def counting(url, key):
    return CountingClient(base_url=url, api_key=key)


async def crowd(side, model, tokens):
    """Eight users at once."""
    return await asyncio.gather(*(stream(counting(side["url"], key), model, tokens) for key in side["keys"]))


async def image_among(side, model, tokens, seconds):
    """Seven users ask again and again for some seconds; the eighth sends images until they have done so."""
    *others, sender = side["keys"]
    ends, over = time.monotonic() + seconds, asyncio.Event()

    async def go_on(key):
        client, seen = counting(side["url"], key), []
        while time.monotonic() < ends:
            seen.append(await stream(client, model, tokens))
            if seen[-1]["outcome"] != "served":
                await asyncio.sleep(IMAGE_PAUSE)
        return seen

    async def send_images():
        client, seen = counting(side["url"], sender), []
        while not over.is_set():
            seen.append(await send_image(client, model))
            await asyncio.sleep(IMAGE_PAUSE)
        return seen

    sending = asyncio.create_task(send_images())
    seen = [one for some in await asyncio.gather(*map(go_on, others)) for one in some]
    over.set()
    return {"others": seen, "images": await sending}


# --- the whole run ----------------------------------------------------------------------------


def start(args, folder, stack):
    """Two llama-servers and the gateway before them: (direct, gateway)."""
    model = folder / "tiny.gguf"
    subprocess.run([args.model_python, ROOT / "tests/real_server/tiny_model.py", model], check=True, stdout=subprocess.DEVNULL)
    ports = {"local": free_port(), "spare": free_port()}
    for name, port in ports.items():
        command = [args.server, "-m", model, "--alias", "tiny", "-np", SLOTS, "-t", 1, "--host", "127.0.0.1", "--port", port, "--offline"]
        stack.enter_context(Server(command, port, CORES, folder / f"{name}.log", path="/health"))
        wait_until_loaded(port)
    keys = [f"sk-user-{number}-0123456789abcdef0123456789abcdef" for number in range(USERS)]
    SECRETS.update({f"USER_{number}": key for number, key in enumerate(keys)})
    port, config = free_port(), folder / "tierway.toml"
    providers = "".join(provider_section(name, ports[name], name) for name in ports)
    users = "".join(f'\n[[keys]]\nname = "user-{number}"\npolicy = "user"\nsecret = "env:USER_{number}"\n' for number in range(USERS))
    config.write_text(CONFIG.format(port=port, providers=providers) + users)
    stack.enter_context(Server([args.tierway, "serve", "--config", config], port, CORES, folder / "gateway.log"))
    return ({"url": f"http://127.0.0.1:{ports['local']}/v1", "keys": keys}, {"url": f"http://127.0.0.1:{port}/v1", "keys": keys})


def wait_until_loaded(port):
    """The server listens before its model is loaded, and answers 503 until then."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise SystemExit("llama-server does not load the model")


async def measure(direct, gateway, args):
    seconds_each = await calibrate(direct["url"])
    tokens, short = max(5, round(args.each / seconds_each)), max(5, round(args.short / seconds_each))
    say(f"{seconds_each * 1000:.0f} ms for each token; {tokens} tokens for each of {USERS} users, then {short}")
    figures = {"tokens": tokens, "short": short, "token_ms": seconds_each * 1000, "crowd": {}, "image": {}}
    figures["crowd"]["direct"] = await crowd(direct, "tiny", tokens)
    waited = max(one["first_s"] or 0 for one in figures["crowd"]["direct"])
    if waited < 2.5 * args.each:
        # Something else took the processor while it was calibrated; the last users are meant to wait for three others.
        tokens = figures["tokens"] = round(tokens * 3 * args.each / waited)
        say(f"the last waited only {waited:.0f} s: again, with {tokens} tokens")
        figures["crowd"]["direct"] = await crowd(direct, "tiny", tokens)
    say(f"{USERS} users, direct: done")
    for name, model in GATEWAY_MODELS.items():
        figures["crowd"][name] = await crowd(gateway, model, tokens)
        say(f"{USERS} users, {name}: done")
    for name, side, model in [("direct", direct, "tiny"), *((name, gateway, model) for name, model in GATEWAY_MODELS.items())]:
        figures["image"][name] = await image_among(side, model, short, args.seconds)
        say(f"an image among others, {name}: done")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", type=Path, default=ROOT / ".tools/bin/llama-server")
    parser.add_argument("--model-python", type=Path, default=ROOT / "tests/real_server/.venv/bin/python",
                        help="the interpreter that has the package gguf")
    parser.add_argument("--each", type=float, default=12, help="seconds that a slot is busy for each of the eight users")
    parser.add_argument("--short", type=float, default=2, help="the same for each request beside the images")
    parser.add_argument("--seconds", type=float, default=30, help="how long images are sent")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        for name in [name for name in os.environ if name.lower().startswith(("openai", "http_proxy", "https_proxy", "all_proxy"))]:
            del os.environ[name]
        with tempfile.TemporaryDirectory(prefix="tierway-real-") as folder, ExitStack() as stack:
            direct, gateway = start(args, Path(folder), stack)
            figures = asyncio.run(measure(direct, gateway, args))
        figures["about"] = {**machine(), "build": build_of(args.tierway), "each": args.each, "seconds": args.seconds}
        if args.figures:
            args.figures.write_text(json.dumps(figures))
    print(real_server_page.crowd_table(figures))
    print()
    print(real_server_page.image_table(figures))
    real_server_page.write(args.docs, figures)
    judge(figures)


def judge(figures):
    """Ends with an error when the gateway served less or later than the server itself, left it early, or hid its words."""
    broken = []
    latest = max(one["first_s"] or 0 for one in figures["crowd"]["direct"])
    for name in GATEWAY_MODELS:
        seen = figures["crowd"][name]
        if missing := sum(one["outcome"] != "served" for one in seen):
            broken.append(f"{name}: {missing} of {len(seen)} users were not served")
        if again := sum(one["sends"] > 1 for one in seen):
            broken.append(f"{name}: {again} of {len(seen)} users were served only because their client asked again")
        if late := sum((one["first_s"] or 0) > latest * (1 + LATER) for one in seen):
            broken.append(f"{name}: {late} of {len(seen)} users waited longer than the last one did directly")
        if early := sum("spare" in (one["deployment"] or "") and (one["first_s"] or 0) < PATIENCE for one in seen):
            broken.append(f"{name}: {early} of {len(seen)} requests left for the fallback within {PATIENCE} s")
    for name, part in figures["image"].items():
        if name == "direct":
            continue
        if missing := sum(one["outcome"] != "served" for one in part["others"]):
            broken.append(f"{name}: {missing} of {len(part['others'])} requests were not served while another user sent images")
        if leaked := sum("spare" in (one["deployment"] or "") for one in part["others"]):
            broken.append(f"{name}: {leaked} of {len(part['others'])} requests left for the fallback while another user sent images")
        if hidden := sum(real_server_page.WORDS not in one["error"] for one in part["images"]):
            broken.append(f"{name}: {hidden} of {len(part['images'])} errors do not have the server's words")
    if broken:
        raise SystemExit("\n".join(["not as promised:", *broken]))


if __name__ == "__main__":
    main()
