"""The provider of the cheapest of three tiers fails in seven ways, and again with a second region of its model:
`make tuesday`.

The gateway with default settings, and the official Python client with default settings but its timeout: half of
the requests are sent with 10 s, half with 30 s. Whole answers and streams have runs of their own, because what
one teaches the gateway about a provider would help the other. The fault begins after ten seconds and stays.

It must never count a request apart because it was in flight when the fault began: such a request is among those
of the first two seconds.

Writes docs/tuesday.md, with the table of benches/throttling.py; start reading in `main`.
"""

import argparse
import collections
import json
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

import outage_stage
import throttling
import tuesday_page
from outage_stage import Load, Providers, Stage, model_section, provider_section, quantile
from processes import machine, say

#: Seconds of load before the fault.
ONSET = 10
#: Seconds at the start that have no part in the times before the fault: connections are made, modules loaded.
WARM_UP = 1.5
#: The first seconds of the fault, counted apart.
FIRST = 2
#: Seconds of the fault after which further cuts are counted apart: whoever leaves such a provider has left it by then.
LEFT = 10

TIERS = """
[tiers.default]
models = ["cheap"]
then = ["fallback", "premium"]

[tiers.fallback]
models = ["middle"]
then = ["premium"]

[tiers.premium]
models = ["best"]
"""

#: What the provider of the cheapest model is told.
FAULTS = {
    "503": {"kind": "status", "status": 503},
    "429": {"kind": "status", "status": 429},
    "429-some": {"kind": "status", "status": 429, "share": 0.05},
    "black-hole": {"kind": "black_hole"},
    "silent": {"kind": "silent"},
    "slow": {"kind": "slow", "times": 20},
    "cut-late": {"kind": "cut", "after_s": 5},
}
#: The modes, and what a healthy provider needs in each, in milliseconds.
USUAL_MS = {"whole": 260, "streamed": 80}
MODES = list(USUAL_MS)
#: A machine on which the median is that many times as late before any fault is too busy to say more than what failed.
BUSY = 1.5


@dataclass(frozen=True)
class Size:
    """How much load."""

    per_second: int = 100
    fault_s: int = 60
    onset_s: int = ONSET
    timeouts: tuple = (10, 30)


SMALL = Size(per_second=20, fault_s=6, onset_s=3)
SMALL_FAULTS = ["503", "429", "black-hole", "silent"]


@dataclass
class Run:
    """One fault in one mode."""

    fault: str
    mode: str
    regions: int
    onset_s: int
    #: One line of sdk_load.py each.
    requests: list = field(default_factory=list)


def run(args, size, fault, mode, regions, folder):
    # A stream that is to be cut after five seconds must be longer than that.
    long = fault == "cut-late" and mode == "streamed"
    tokens, pace_ms = (12, 500) if long else (10, 20)
    names = ["cheap-east", "middle", "best"] + (["cheap-west"] if regions == 2 else [])
    with Providers(names, pace_ms=pace_ms) as providers:
        places = {"cheap-east": "us-east", "cheap-west": "us-west", "middle": "eu-central", "best": "ap-south"}
        sections = [provider_section(name, providers.ports[name], places[name]) for name in names]
        sections += [model_section("cheap", [name for name in names if name.startswith("cheap")]),
                     model_section("middle", ["middle"], "0.60"), model_section("best", ["best"], "2.50"), TIERS]
        load = {"model": "default", "tokens": tokens, "per_second": size.per_second, "seconds": size.onset_s + size.fault_s,
                "timeouts": size.timeouts, "modes": [mode]}
        seen = Run(fault, mode, regions, size.onset_s)
        with Stage(args.tierway, folder, f"{fault}-{mode}-{regions}", providers, sections) as stage:
            with Load({**load, "targets": [stage.target]}) as under_way:
                under_way.wait_until(size.onset_s)
                providers.fail("cheap-east", **FAULTS[fault])
                say(f"{fault}, {mode}, {regions} region{'s' * (regions > 1)}: begun")
                seen.requests = under_way.requests()
    return seen


# --- what it means ----------------------------------------------------------------------------


def window_of(request, onset):
    """The part of the run that a request belongs to."""
    if request["due_s"] >= onset + FIRST:
        return "after"
    if request["due_s"] >= onset or request["due_s"] + (request["first_ms"] or request["end_ms"]) / 1000 >= onset:
        return "first"
    return "before"


def rows_of(runs):
    """One row for each fault, number of regions, mode and timeout."""
    for seen in runs:
        for timeout in sorted({request["timeout"] for request in seen.requests}):
            yield row_of(seen, timeout, [request for request in seen.requests if request["timeout"] == timeout])


def row_of(seen, timeout, requests):
    windows = collections.defaultdict(list)
    for request in requests:
        windows[window_of(request, seen.onset_s)].append(request)
    outcomes = collections.Counter(request["outcome"] for request in requests)
    after_onset = windows["first"] + windows["after"]
    attempts = [request["attempts"] for request in after_onset if request["attempts"]]
    served_by = collections.Counter((request["deployment"] or "").split("/")[0] for request in after_onset
                                    if request["outcome"] == "served")
    row = {
        "fault": seen.fault, "mode": seen.mode, "regions": seen.regions, "timeout": timeout,
        "requests": len(requests), "failed": outcomes["failed"], "cut": outcomes["cut"],
        "looked_complete": outcomes["passed off as whole"],
        "cut_later": sum(request["outcome"] == "cut" and request["due_s"] >= seen.onset_s + LEFT for request in requests),
        "resent": sum(request["sends"] > 1 for request in requests),
        "attempts": sum(attempts) / len(attempts) if attempts else None,
        "served_by": dict(served_by.most_common()),
        "errors": [f"at {request['due_s']:.1f} s, after {request['end_ms'] / 1000:.1f} s: {request['error']}"
                   for request in requests if request["outcome"] in ("failed", "passed off as whole")][:3],
        "cuts": collections.Counter(request["error"] for request in requests if request["outcome"] == "cut").most_common(2),
        "late_ms": quantile([request["late_ms"] for request in requests], 0.99),
    }
    for name in ["before", "first", "after"]:
        took = [request["first_ms"] for request in windows[name]
                if request["first_ms"] is not None and request["due_s"] >= WARM_UP]
        row[name] = {"p50": quantile(took, 0.5), "p99": quantile(took, 0.99), "max": max(took, default=None),
                     "failed": sum(request["outcome"] == "failed" for request in windows[name])}
    return row


# --- the whole run ----------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=None)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--regions", nargs="+", type=int, choices=[1, 2], default=None, help="of the cheapest model")
    parser.add_argument("--small", action="store_true", help="a few seconds of little load; writes no page")
    parser.add_argument("--per-second", type=int)
    parser.add_argument("--seconds", type=int, help="how long the fault stays")
    parser.add_argument("--jobs", type=int, help="how many runs at a time")
    parser.add_argument("--no-throttling", action="store_true", help="leave out the table of benches/throttling.py; no page")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    size = SMALL if args.small else Size()
    size = Size(**{**asdict(size), **({"per_second": args.per_second} if args.per_second else {}),
                   **({"fault_s": args.seconds} if args.seconds else {})})
    faults = args.faults or (SMALL_FAULTS if args.small else list(FAULTS))
    cells = [(fault, mode, regions) for regions in args.regions or ([1] if args.small else [1, 2])
             for fault in faults for mode in args.modes]
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        figures = {"about": {**machine(), "build": outage_stage.build_of(args.tierway)}, "size": asdict(size)}
        with tempfile.TemporaryDirectory(prefix="tierway-tuesday-") as folder:
            figures["runs"] = [asdict(seen) for seen in all_runs(args, size, cells, Path(folder))]
            if not args.small and not args.no_throttling:
                figures["throttling"] = throttling.measure(args.tierway, Path(folder))
        if args.figures:
            args.figures.write_text(json.dumps(figures))
    rows = list(rows_of(Run(**seen) for seen in figures["runs"]))
    busy = sum((row["before"]["p50"] or 0) > BUSY * USUAL_MS[row["mode"]] for row in rows)
    figures["about"]["busy"] = f"{busy} of {len(rows)} rows" if busy else None
    print(tuesday_page.tables(rows))
    throttled = figures.get("throttling")
    if throttled:
        print(throttling.table(throttled))
        if {(row["fault"], row["mode"], row["regions"]) for row in rows} == set(
                (fault, mode, regions) for fault in FAULTS for mode in MODES for regions in (1, 2)):
            tuesday_page.write(args.docs, rows, throttled, figures["size"], figures["about"])
    if busy:
        say(f"the machine was busy with something else in {busy} of {len(rows)} rows: their times mean little")
    judge(rows, throttled)


def all_runs(args, size, cells, folder):
    """The runs in the order of `cells`, `--jobs` at a time."""
    jobs = args.jobs or (2 if args.small else 1)
    done, waiting, lock = {}, list(cells), threading.Lock()

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                cell = waiting.pop(0)
            done[cell] = run(args, size, *cell, folder)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [cell for cell in cells if cell not in done]
    if missing:
        raise SystemExit(f"no figures of: {missing}")
    return [done[cell] for cell in cells]


def judge(rows, throttled):
    """Ends with an error when a request failed, or a cut stream looked complete, or throttling cost more than direct."""
    broken = [f"{row['fault']}, {row['mode']}, {row['regions']} region(s), {row['timeout']} s: {row['failed']} failed"
              for row in rows if row["failed"]]
    broken += [f"{row['fault']}: {row['looked_complete']} cut streams looked complete" for row in rows if row["looked_complete"]]
    # Only an answer under way when its provider fails can be cut, and only the fault that cuts goes on doing so.
    broken += [f"{row['fault']}, {row['mode']}: {row['cut']} cut" for row in rows
               if row["cut"] and (row["mode"] == "whole" or row["fault"] in ("503", "429", "429-some", "slow"))]
    broken += throttling.broken(throttled or [])
    if broken:
        raise SystemExit("\n".join(["not as promised:", *broken]))


if __name__ == "__main__":
    main()
