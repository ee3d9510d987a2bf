"""The first token with and without hedging, while one region is twenty times as slow for some requests: `make hedging`.

The official Python client asks two regions through the gateway, once under a policy without `hedge` and once with
it. In all cases but the last, requests are sent to the slow region first, so that its share is exact and the same
requests are slow in both runs. An attempt counts as extra however little of it was used.

It must never leave out a request: a first token that came late is in the percentiles, whoever was at fault.

Writes docs/hedging.md; start reading in `measure`.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import outage_stage
from outage_stage import Load, Providers, Stage, build_of, in_ms, model_section, provider_section, quantile
from processes import machine, say

SLOW, OTHER = "us-east", "eu-central"
TIMES, FIRST_MS = 20, 80
PER_SECOND, SECONDS = 50, 60

#: A load that is later than this itself has measured the machine.
LATE_MS = 100
#: What the p99 of the first token must come down to, of that without hedging.
ENOUGH = 0.5
#: By default a slow region is asked less: what of its slow share hedges may cost then. A choice by chance would cost half.
AVOIDED = 0.25


@dataclass(frozen=True)
class Case:
    """How many requests are slow, and what the policy says that hedges."""

    share: float
    after: str
    extra: str
    #: Where requests are sent first; `None` is the default.
    balance: str | None = "ordered"

    @property
    def hedge(self):
        return f'hedge = {{ after = "{self.after}", at_least = "300ms", extra = "{self.extra}" }}'


CASES = [Case(0.015, "p95", "2%"), Case(0.10, "p95", "10%"), Case(0.10, "300ms", "10%"), Case(0.10, "300ms", "10%", None)]


def measure(tierway, folder, seconds, per_second):
    """The figures of every case."""
    return [{**vars(case), "hedge": case.hedge,
             "sides": {side: summary(one(tierway, folder, case, side, seconds, per_second)) for side in ("without", "with")}}
            for case in CASES]


def one(tierway, folder, case, side, seconds, per_second):
    """Every request of one run."""
    name = f"{side}-{case.share}-{case.after}-{case.balance or 'default'}"
    with Providers([SLOW, OTHER], FIRST_MS) as providers:
        providers.fail(SLOW, kind="slow", times=TIMES, share=case.share)
        sections = [provider_section(region, providers.ports[region], region) for region in (SLOW, OTHER)]
        sections.append(model_section("cheap", [SLOW, OTHER]))
        if case.balance:
            sections.append(f'\n[routing]\nbalance = "{case.balance}"\n')
        if side == "with":
            sections.append(f'\n[policies.bench.hedge]\nafter = "{case.after}"\nat_least = "300ms"\nextra = "{case.extra}"\n')
        with Stage(tierway, folder, name, providers, sections) as stage:
            load = {"model": "cheap", "tokens": 2, "per_second": per_second, "seconds": seconds, "timeouts": [60],
                    "modes": ["streamed"], "targets": [stage.target]}
            with Load(load) as under_way:
                requests = under_way.requests()
    say(f"hedging: {name}")
    return requests


def summary(requests):
    first = [request["first_ms"] for request in requests if request["first_ms"] is not None]
    extra = sum(request["attempts"] - 1 for request in requests if request["attempts"])
    return {
        "requests": len(requests), "failed": sum(request["outcome"] != "served" for request in requests),
        "slow": sum(first_ms > FIRST_MS * TIMES * 0.9 for first_ms in first), "p50": quantile(first, 0.5),
        "p99": quantile(first, 0.99), "most": max(first, default=None),
        "late": quantile([request["late_ms"] for request in requests], 0.99), "extra": extra / max(1, len(requests)),
    }


def broken(results):
    """What does not hold of hedging."""
    found = []
    for case in results:
        plain, hedged = case["sides"]["without"], case["sides"]["with"]
        name = f"{case['share']:.1%} slow, {case['hedge']}, balance {case['balance'] or 'default'}"
        if plain["failed"] or hedged["failed"]:
            found.append(f"{name}: {plain['failed']} failed without hedging, {hedged['failed']} with it")
        if max(plain["late"], hedged["late"]) > LATE_MS:
            found.append(f"{name}: the load itself was late by {in_ms(max(plain['late'], hedged['late']))}: the machine is busy")
        if hedged["extra"] > float(case["extra"].rstrip("%")) / 100:
            found.append(f"{name}: {hedged['extra']:.2%} extra attempts")
        if case["balance"] is None and hedged["extra"] > case["share"] * AVOIDED:
            found.append(f"{name}: {hedged['extra']:.2%} extra attempts: hedging hides the slow region from the balance")
        if is_promised(case) and not (plain["p99"] and hedged["p99"] and hedged["p99"] <= plain["p99"] * ENOUGH):
            found.append(f"{name}: p99 {in_ms(hedged['p99'])}, without {in_ms(plain['p99'])}")
    return found


def is_promised(case):
    """Whether fewer are slow than the percentile that is waited for leaves: else it is the slow ones' own. The balance
    may have avoided them already."""
    return case["balance"] is not None and (not case["after"].startswith("p") or case["share"] < 1 - float(case["after"][1:]) / 100)


# --- the page ---------------------------------------------------------------------------------


def table(results):
    head = ["slow", "policy", "balance", "requests", "failed: without", "with", "p50: without", "with", "p99: without", "**with**",
            "longest: without", "with", "extra attempts"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case in results:
        plain, hedged = case["sides"]["without"], case["sides"]["with"]
        cells = [f"{case['share']:.1%}", f"`{case['hedge']}`", case["balance"] or "default", plain["requests"], plain["failed"], hedged["failed"],
                 in_ms(plain["p50"]), in_ms(hedged["p50"]), in_ms(plain["p99"]), f"**{in_ms(hedged['p99'])}**",
                 in_ms(plain["most"]), in_ms(hedged["most"]), f"{hedged['extra']:.2%}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def page(results, about, build, seconds, per_second):
    return f"""# Hedging

Written by `make hedging`; nothing here is written by hand.

Two regions serve one model, with a first token after {FIRST_MS} ms. For a share of its requests, chosen at random, **{SLOW}**
is {TIMES} times as slow: {FIRST_MS * TIMES:,} ms. In `ordered` the same requests are slow in both runs, without `hedge` and with it.

{table(results)}

The loser of two attempts is cancelled as soon as the other's first token is there, and is paid for: the receipt has
both, the loser at the most that it can have cost. Money for both is held before the second is sent.

Where more requests are slow than a percentile leaves, `p95` can be the time of the slow ones themselves: then a
time is the safer `after`. Where as many are slow as `extra` allows, chance makes some of them find it used up: these are
looked at again ten times a second, and hedged later or not at all.

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The {build} binary; the official Python
client, {per_second} streams a second for {seconds} s in each run, timed from when each was due. With `balance = "ordered"` every request is
sent to {SLOW} first; by default both regions are asked, and a slow one less. All traffic is over loopback, without TLS.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--per-second", type=int, default=PER_SECOND)
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    about = machine()
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        with tempfile.TemporaryDirectory(prefix="tierway-hedging-") as folder:
            results = measure(args.tierway, Path(folder), args.seconds, args.per_second)
        figures = {"about": about, "build": build_of(args.tierway), "seconds": args.seconds, "per_second": args.per_second,
                   "results": results}
        if args.figures:
            args.figures.write_text(json.dumps(figures))
    print(table(figures["results"]))
    args.docs.mkdir(parents=True, exist_ok=True)
    (args.docs / "hedging.md").write_text(page(*(figures[name] for name in ("results", "about", "build", "seconds", "per_second"))))
    if found := broken(figures["results"]):
        raise SystemExit("\n".join(["does not hold:", *found]))


if __name__ == "__main__":
    main()
