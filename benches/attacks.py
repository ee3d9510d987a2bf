"""Keys whose requests make their provider fail in every way, beside keys whose requests are to be served: `make attacks`.

A row is a failure, who provokes it, and where. Each has a gateway with default settings and providers of its own.
The attackers drive as fast as their limits allow; a dozen keys have a quarter of the traffic.

It must never set a value of `[routing]`: what is measured is what somebody gets who sets nothing.

Writes docs/attacks.md, with --small nothing; start reading in `main`.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import attacks_page
import outage_stage
from attack_provider import KINDS
from outage_stage import quantile
from processes import machine, say

#: Who attacks: how many keys, whether they are one team, and whether they have a quarter of the traffic.
ATTACKERS = {
    "one key": {"attackers": 1, "one_team": False},
    "a team": {"attackers": 2, "one_team": True},
    "a dozen": {"attackers": 12, "one_team": False},
}
#: Where: how many regions the model has, and whether each fails what asks for it, or the first one only.
PLACES = {
    "alone": {"regions": 1, "everywhere": True},
    "one of two": {"regions": 2, "everywhere": False},
    "both of two": {"regions": 2, "everywhere": True},
}
#: Honest requests a second, and how many slow ones begin at once whenever the honest keys do.
PER_SECOND, BURST = 30, 12
#: The attackers have the gateway to themselves; honest keys arrive; they pause, so that none of their successes holds
#: anything off; they arrive again.
FULL = [(1.3, 0, 0), (1.5, PER_SECOND, BURST), (1.3, 0, 0), (1.5, PER_SECOND, BURST)]
SMALL = [(1.2, 0, 0), (0.8, PER_SECOND, BURST)]
SMALL_KINDS = ["401", "403", "404", "429", "503", "silence", "silence, client leaves", "reset", "cut after a token",
               "200 without a choice"]
#: The share of honest requests that is served at least.
PROMISED = {1: 0.99, 2: 0.999}


def rows(small):
    """Every row that is run, as attack_row.py reads it."""
    for kind in KINDS.values():
        for who, attackers in ATTACKERS.items():
            # What is no fault of a provider, two keys without a team may well show to be one of its account.
            dozen = who == "a dozen"
            if (small and kind.name not in SMALL_KINDS) or (dozen and not kind.is_fault):
                continue
            for where, place in PLACES.items():
                if small and (who == "a team" or where == "both of two"):
                    continue
                phases = SMALL if small else FULL
                together = [[sum(seconds for seconds, _, _ in phases), PER_SECOND, 0]]
                yield {"kind": kind.name, "who": who, "where": where, **attackers, **place,
                       "attacks_per_second": PER_SECOND / 3 if dozen else 0, "phases": together if dozen else phases}


def measure(args, wanted, folder):
    """The rows with what came of them, `--jobs` at a time."""
    def run(number, row):
        asked = {**row, "name": f"row-{number}", "folder": str(folder), "tierway": str(args.tierway)}
        done = subprocess.run([sys.executable, Path(__file__).with_name("attack_row.py"), json.dumps(asked)],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"the row did not run: {row}")
        seen = {**row, **json.loads(done.stdout)}
        if seen["sent"] > seen["served"]:
            say(f"{seen['kind']}, {seen['who']}, {seen['where']}: {seen['served']} of {seen['sent']}; {seen['unserved'][0]}")
        return seen

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(run, range(len(wanted)), wanted))


def summary(row):
    """A row's figures."""
    return {**{name: row[name] for name in ["kind", "who", "where", "regions", "sent", "served", "unserved", "closed", "attacks", "read"]},
            "quick_p99": quantile(row["quick_s"], 0.99), "slow_p99": quantile(row["slow_s"], 0.99)}


def broken(rows):
    """What was promised and is not so."""
    return [f"{row['kind']}, {row['who']}, {row['where']}: {row['served']} of {row['sent']} served; {row['unserved'][0]}"
            for row in rows if row["served"] < PROMISED[row["regions"]] * row["sent"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a few rows, shorter; writes no page")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="these failures only; writes no page")
    parser.add_argument("--who", nargs="+", choices=ATTACKERS, help="these attackers only; writes no page")
    parser.add_argument("--where", nargs="+", choices=PLACES, help="these places only; writes no page")
    parser.add_argument("--jobs", type=int, help="how many rows at a time")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    args.jobs = args.jobs or (2 if args.small else 4) * (os.cpu_count() or 1)
    partial = args.small or args.kinds or args.who or args.where
    wanted = [row for row in rows(args.small) if row["kind"] in (args.kinds or KINDS)
              and row["who"] in (args.who or ATTACKERS) and row["where"] in (args.where or PLACES)]
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        figures = {"about": {**machine(), "build": outage_stage.build_of(args.tierway)}}
        with tempfile.TemporaryDirectory(prefix="tierway-attacks-") as folder:
            figures["rows"] = [summary(row) for row in measure(args, wanted, Path(folder))]
        if args.figures:
            args.figures.write_text(json.dumps(figures))
    print(attacks_page.tables(figures["rows"]))
    if not partial:
        attacks_page.write(args.docs, figures)
    if lost := broken(figures["rows"]):
        raise SystemExit("\n".join(["not as promised:", *lost]))


if __name__ == "__main__":
    main()
