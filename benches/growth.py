"""Scaling: thousands of open streams, a hundred thousand keys, a thousand deployments.

It must never compare sizes of different builds or times: every size is measured in every round.

Start reading in `many_streams` and `growth`.
"""

import hashlib
import os
import resource
import subprocess
import time

from processes import KEY, MODEL, SECRETS, Server, free_port, say

#: Streams held at once, where the limit on open files allows: each needs two.
OPEN_STREAMS = 10_000
#: Descriptors left for everything else.
SPARE = 400
#: New streams in a second while the others are held.
RATE = 200

KEYS = [10, 1_000, 10_000, 100_000]
DEPLOYMENTS = [3, 30, 300, 1_000]

HEAD = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"

[policies.bench]
models = ["*"]
requests_per_minute = 1000000000

[telemetry]
log = "info"
"""

PROVIDER = """
[providers.p{number}]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "r{number}"
"""


# --- many streams -----------------------------------------------------------------------------


def many_streams(args, folder, loads, contenders):
    """For each contender, one line per round: memory per stream, first tokens before and meanwhile."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    streams = min(OPEN_STREAMS, (files - SPARE) // 2)
    seen = {"streams": streams, "files": files}
    for number in range(loads.lengths.open_streams_rounds):
        for turn in range(len(contenders(args, folder, free_port()))):
            # Each has its own provider: thousands of closed connections keep their ports for a minute.
            port = free_port()
            with Server([args.rig, "mock", f"127.0.0.1:{port}"], port, args.load_core, folder / "mock.log"):
                gateway = contenders(args, folder, port, connections=4 * streams)[turn]
                if turn == 0:
                    seen.setdefault("direct", []).append(first_tokens(loads, port, "alone"))
                seen.setdefault(gateway.name, []).append(of_many_streams(gateway, loads, streams))
        say(f"round {number + 1}: {streams:,} open streams")
    return seen


def of_many_streams(gateway, loads, streams):
    with gateway.start() as server:
        time.sleep(0.3)
        line = first_tokens(loads, gateway.port, "alone")
        idle = server.rss_kib()
        with loads.holding(gateway.port, streams):
            line["kib"] = (server.rss_kib() - idle) / streams
            return line | first_tokens(loads, gateway.port, "meanwhile")


def first_tokens(loads, port, when):
    said = loads.open(port, RATE, loads.lengths.fast, "--stream")
    return {f"{when}_p50_us": said["p50_us"], f"{when}_p99_us": said["p99_us"]}


# --- large configurations ---------------------------------------------------------------------


def growth(args, folder, loads, mock):
    """For each shape and size: processor time per request, time to ready, memory; one value per round."""
    seen = {shape: {size: [] for size in sizes} for shape, (sizes, _) in SHAPES.items()}
    for number in range(loads.lengths.growth_rounds):
        for shape, (sizes, write) in SHAPES.items():
            for size in sizes:
                seen[shape][size].append(of_one_size(args, folder, loads, *write(size, mock)))
            say(f"round {number + 1}: {shape}")
    return seen


def of_one_size(args, folder, loads, config, key, model, stored=""):
    port = free_port()
    file, database = folder / "growth.toml", folder / "growth.db"
    for old in folder.glob("growth.db*"):
        old.unlink()
    file.write_text(config.replace("{port}", str(port)))
    if stored:
        subprocess.run(
            [args.tierway, "keys", "import", "-", "--config", file], input=stored, text=True, check=True, capture_output=True,
            env={**os.environ, **SECRETS, "TIERWAY__STORE__URL": f"sqlite:{database.absolute()}"},
        )
    command = [args.tierway, "serve", "--config", file]
    with Server(command, port, args.gateway_core, folder / "growth.log") as server:
        idle = server.rss_kib() / 1024
        loads.wrk(port, 1, 64, key=key, model=model)
        before = server.cpu_seconds()
        requests, _ = loads.wrk(port, loads.lengths.growth, 64, key=key, model=model)
        cpu = (server.cpu_seconds() - before) * 1e6 / requests
        return {"cpu_us": cpu, "ready_ms": server.ready_ms, "idle_mib": idle}


def hashes(size):
    """The hashes of so many keys; the last one is used."""
    secrets = [*(f"sk-{number:09}" for number in range(size - 1)), KEY]
    return [f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}" for secret in secrets]


def with_keys(size, mock):
    """Many keys in the file."""
    keys = "".join(
        f'[[keys]]\nname = "key-{number}"\npolicy = "bench"\nhash = "{each}"\n' for number, each in enumerate(hashes(size))
    )
    return HEAD + providers(mock) + model(MODEL, ["p0", "p1", "p2"]) + keys, KEY, MODEL


def with_stored_keys(size, mock):
    """Many keys in the database, one more in the file."""
    rows = "".join(f"key-{number},bench,{each}\n" for number, each in enumerate(hashes(size)))
    of_file = '\n[[keys]]\nname = "other"\npolicy = "bench"\nsecret = "env:BENCH_LIMITED"\n'
    config = HEAD + providers(mock) + model(MODEL, ["p0", "p1", "p2"]) + of_file
    return config, KEY, MODEL, "name,policy,hash\n" + rows


def with_models(size, mock):
    """Three deployments for each model; the last model is requested."""
    names = [f"model-{number}" for number in range(size // 3)]
    models = "".join(model(name, ["p0", "p1", "p2"]) for name in names)
    return HEAD + providers(mock) + models + one_key(), KEY, names[-1]


def with_one_model(size, mock):
    """One model with all deployments."""
    return HEAD + providers(mock) + model(MODEL, [f"p{number % 3}" for number in range(size)]) + one_key(), KEY, MODEL


SHAPES = {
    "keys": (KEYS, with_keys),
    "stored keys": (KEYS, with_stored_keys),
    "deployments, three for each model": (DEPLOYMENTS, with_models),
    "deployments, all of one model": (DEPLOYMENTS, with_one_model),
}


def providers(mock):
    return "".join(PROVIDER.format(number=number, mock=mock) for number in range(3))


def model(name, served_by):
    deployments = ", ".join(
        f'{{ provider = "{provider}", name = "{name}-{number}" }}' for number, provider in enumerate(served_by)
    )
    return f'\n[models."{name}"]\nprice = {{ input = "0.07", output = "0.25" }}\ndeployments = [{deployments}]\n'


def one_key():
    return '\n[[keys]]\nname = "bench"\npolicy = "bench"\nsecret = "env:BENCH_KEY"\n'
