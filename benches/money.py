"""The cost of accounting: receipts on the disk, budgets, credit, stored keys.

The same gateway in five configurations, interleaved round after round; each is compared with the first,
which stores nothing and holds nothing. It must never compare two builds.

`make bench` writes it into its page; `python3 benches/money.py [--quick]` prints it alone. Start reading in
`money`.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from loads import Loads
from processes import KEY, MODEL, SECRETS, Server, add_arguments, build, free_port, need, say

#: A budget of each key, one of its team, one of its policy: the text to insert after a line of the configuration.
BUDGETS = {
    "[policies.bench]\n": 'budget = { limit = "1000000000", window = "month" }\n',
    "[teams.bench]\n": 'budget = { limit = "1000000000", window = "day" }\n\n[policies.bench.total]\n'
    'budget = { limit = "1000000000", window = "month", zone = "Europe/Paris" }\n',
}
CREDIT = {"[policies.bench]\n": 'credit = "only"\n'}

#: Name, further configuration, and store of each state.
STATES = {
    "in memory, no budget": ({}, "memory:"),
    "receipts on the disk": ({}, "sqlite"),
    "three budgets, in memory": (BUDGETS, "memory:"),
    "three budgets, on the disk": (BUDGETS, "sqlite"),
    "a stored key with credit, on the disk": (CREDIT, "stored"),
}


def money(args, folder, loads, mock, config):
    """For each state: processor time of a whole request, in µs, one value per round."""
    seen = {name: [] for name in STATES}
    with ExitStack() as running:
        servers = {name: running.enter_context(start(args, folder, name, mock, config)) for name in STATES}
        for server in servers.values():
            loads.wrk(server.port, loads.lengths.warm_up, 64)
        for number in range(loads.lengths.rounds):
            for name, server in servers.items():
                before = server.cpu_seconds()
                requests, _ = loads.wrk(server.port, loads.lengths.closed, 64)
                seen[name].append((server.cpu_seconds() - before) * 1e6 / requests)
            say(f"round {number + 1}: money")
    return seen


def start(args, folder, name, mock, config):
    more, place = STATES[name]
    number = list(STATES).index(name)
    port, file = free_port(), folder / f"money-{number}.toml"
    text = config.format(port=port, mock=mock, model=MODEL, tierway_tls="")
    for line, further in more.items():
        text = text.replace(line, line + further, 1)
    store = place if place == "memory:" else f"sqlite:{folder}/money-{number}.db"
    if place == "stored":
        text = text[: text.index("[[keys]]")]
    file.write_text(text)
    if place == "stored":
        rows = f"name,policy,secret\nbench,bench,{KEY}\n"
        register(args, file, store, ["keys", "import", "-"], rows)
        register(args, file, store, ["credits", "grant", "--key", "bench", "1000000"])
    command = [args.tierway, "serve", "--config", file]
    return Server(command, port, args.gateway_core, folder / f"money-{number}.log", store=store)


def register(args, file, store, command, rows=None):
    command = [str(args.tierway), *command, "--config", str(file), "--store", store]
    subprocess.run(command, input=rows, text=True, check=True, capture_output=True, env={**os.environ, **SECRETS})


def table(seen):
    """One line for each state."""
    base = statistics.median(next(iter(seen.values())))
    out = ["| | CPU µs per whole request |", "|---|---|"]
    for name, found in seen.items():
        middle = statistics.median(found)
        out.append(f"| {name} | {middle:.1f} ({min(found):.1f}–{max(found):.1f}) · **{middle / base:.2f}** |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer rounds: a quick check, not figures")
    add_arguments(parser)
    args = parser.parse_args()
    need("wrk", packages="wrk")
    build(args)
    with tempfile.TemporaryDirectory(prefix="tierway-bench-") as name:
        folder, mock = Path(name), free_port()
        loads = Loads(args, folder, compare.QUICK if args.quick else compare.FULL)
        with Server([args.rig, "mock", f"127.0.0.1:{mock}"], mock, args.load_core, folder / "mock.log"):
            print(table(money(args, folder, loads, mock, contenders.TIERWAY)))


if __name__ == "__main__":
    import compare
    import contenders

    main()
