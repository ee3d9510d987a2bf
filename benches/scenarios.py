"""Sixteen ways in which a provider fails, whole and streamed, with default settings and with `stream = "buffered"`:
`make scenarios`.

The provider of the cheaper model fails in one way, that of the other one is well. The official Python client asks,
without retries of its own: what it gets is the gateway's doing. Two of the scenarios have no answer: a request that is
refused for its content, and a provider on each side that is down; there it is the error that is judged.

It must never count an answer as served whose text is not all of it.

Writes docs/scenarios.md; start reading in `main`.
"""

import argparse
import collections
import json
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import outage_stage
from outage_stage import Load, Providers, Stage, in_ms, model_section, provider_section, quantile
from processes import machine, say

#: Requests before the fault, by which the gateway knows how long an answer takes.
WARM_UP_S = 3
PER_SECOND = 6
FAULT_S = 3
#: What the client waits; nothing may take as long, but for a stream that stalls behind its first token.
TIMEOUT_S = 45
TOKENS = 8
#: An error that says that nothing can be done must come within that.
SAID_WITHIN_MS = 10_000

TIERS = """
[tiers.default]
models = ["cheap"]
then = ["fallback"]

[tiers.fallback]
models = ["other"]
"""
SETTINGS = {"default": "", "buffered": '\n[routing]\nstream = "buffered"\n'}
MODES = ["whole", "streamed"]

CONTENT = {"message": "The response was filtered.", "type": "invalid_request_error", "code": "content_filter"}
ERROR_INSIDE = json.dumps({"error": {"message": "The server had an error.", "type": "server_error", "code": None}})


@dataclass(frozen=True)
class Scenario:
    """One way to fail."""

    name: str
    what: str
    fault: dict
    #: How every request must end: "served", or "said": an error with this status.
    end: str = "served"
    statuses: tuple = ()
    #: The other provider fails alike.
    both: bool = False
    #: A stream that is passed on as it comes cannot be saved: it must end with an error.
    breaks_streams: bool = False


SCENARIOS = [
    Scenario("429, Retry-After", "answers 429 and asks for 20 s", {"kind": "status", "status": 429, "retry_after": "20"}),
    Scenario("429", "answers 429 and does not say for how long", {"kind": "status", "status": 429}),
    Scenario("500 once", "answers one request with 500", {"kind": "status", "status": 500, "first": 1}),
    Scenario("503", "answers 503", {"kind": "status", "status": 503}),
    Scenario("refused", "does not listen any more", {"kind": "refused"}),
    Scenario("silent", "accepts requests and answers nothing", {"kind": "silent"}),
    Scenario("slow first token", "its first token takes 100 times as long as usual", {"kind": "slow", "times": 100}),
    Scenario("cut", "closes its connection within the answer", {"kind": "broken", "end": "fin"}, breaks_streams=True),
    Scenario("reset", "resets its connection within the answer", {"kind": "broken", "end": "rst"}, breaks_streams=True),
    Scenario("early end", "ends within the answer as if it were whole", {"kind": "broken", "end": "clean"}, breaks_streams=True),
    Scenario("stall", "sends nothing more within the answer", {"kind": "broken", "end": "stall"}, breaks_streams=True),
    Scenario("malformed", "sends half of an object as a whole one", {"kind": "says", "text": '{"id":"x","choices":[{"ind'},
             breaks_streams=True),
    Scenario("error inside a 200", "sends an error with a status of success", {"kind": "says", "text": ERROR_INSIDE},
             breaks_streams=True),
    Scenario("content filter", "refuses the request for its content", {"kind": "status", "status": 400, "error": CONTENT},
             end="said", statuses=(400,)),
    Scenario("flapping", "fails every second request with 500", {"kind": "status", "status": 500, "every": 2}),
    Scenario("all down", "answers 503, and so does the other one", {"kind": "status", "status": 503}, end="said",
             statuses=(502, 503), both=True),
]
#: Those whose every request ends within seconds.
SMALL = ["429", "500 once", "cut", "early end", "error inside a 200", "content filter", "all down"]


@dataclass(frozen=True)
class Cell:
    scenario: Scenario
    mode: str
    setting: str


def run(args, cell, folder):
    """Every request of one cell that was sent after the fault began."""
    with Providers(["cheap", "other"]) as providers:
        sections = [provider_section("cheap", providers.ports["cheap"], "us-east"),
                    provider_section("other", providers.ports["other"], "eu-central"),
                    model_section("cheap", ["cheap"]), model_section("other", ["other"], "0.60"), TIERS, SETTINGS[cell.setting]]
        load = {"model": "default", "tokens": TOKENS, "per_second": PER_SECOND, "seconds": WARM_UP_S + FAULT_S,
                "timeouts": [TIMEOUT_S], "modes": [cell.mode], "max_retries": 0}
        name = f"{SCENARIOS.index(cell.scenario)}-{cell.mode}-{cell.setting}"
        with Stage(args.tierway, folder, name, providers, sections) as stage:
            with Load({**load, "targets": [stage.target]}) as under_way:
                under_way.wait_until(WARM_UP_S)
                for provider in ["cheap", "other"] if cell.scenario.both else ["cheap"]:
                    providers.fail(provider, **cell.scenario.fault)
                return [request for request in under_way.requests() if request["due_s"] >= WARM_UP_S]


def row_of(cell, requests):
    outcomes = collections.Counter(request["outcome"] for request in requests)
    said = [request for request in requests if request["outcome"] == "failed"]
    took = [request["end_ms"] for request in requests]
    return {"scenario": cell.scenario.name, "mode": cell.mode, "setting": cell.setting, "requests": len(requests),
            "outcomes": dict(outcomes), "slowest_ms": max(took, default=None), "p50_ms": quantile(took, 0.5),
            "statuses": dict(collections.Counter(request["status"] for request in said)),
            "errors": sorted({request["error"] for request in requests if request["error"]})[:2]}


def verdict(scenario, row):
    """"pass", "said" where a stream that had begun ended with an error, or what is wrong."""
    outcomes, requests = row["outcomes"], row["requests"]
    if not requests:
        return "nothing was asked"
    if outcomes.get("passed off as whole"):
        return f"{outcomes['passed off as whole']} broken answers looked whole"
    if scenario.end == "said":
        wrong = [status for status in row["statuses"] if status not in scenario.statuses]
        if outcomes.get("failed") != requests or wrong:
            return f"not an error of {scenario.statuses}: {outcomes}, {row['statuses']}"
        return "pass" if row["slowest_ms"] < SAID_WITHIN_MS else f"the error came after {row['slowest_ms']:,.0f} ms"
    if outcomes.get("served") == requests:
        return "pass"
    may_break = scenario.breaks_streams and row["mode"] == "streamed" and row["setting"] == "default"
    if may_break and outcomes.get("served", 0) + outcomes.get("cut", 0) == requests:
        return "said"
    return f"{outcomes}: {'; '.join(row['errors'])}"


# --- the whole run ----------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--small", action="store_true", help="some of the scenarios, with streams held; writes no page")
    parser.add_argument("--jobs", type=int, default=2, help="how many cells at a time")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    names = args.only or (SMALL if args.small else [scenario.name for scenario in SCENARIOS])
    chosen = [scenario for scenario in SCENARIOS if scenario.name in names]
    cells = [Cell(scenario, mode, setting) for scenario in chosen for mode in MODES for setting in SETTINGS
             if setting == "buffered" or not args.small]
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        with tempfile.TemporaryDirectory(prefix="tierway-scenarios-") as folder:
            rows = all_runs(args, cells, Path(folder))
        figures = {"about": {**machine(), "build": outage_stage.build_of(args.tierway)}, "rows": rows}
        if args.figures:
            args.figures.write_text(json.dumps(figures))
    print(table(chosen, figures["rows"]))
    wrong = [f"{row['scenario']}, {row['mode']}, {row['setting']}: {said}" for scenario in chosen
             for row in figures["rows"] if row["scenario"] == scenario.name
             for said in [verdict(scenario, row)] if said not in ("pass", "said")]
    if wrong:
        raise SystemExit("\n".join(["not as promised:", *wrong]))
    if len(chosen) == len(SCENARIOS):
        write_page(args.docs, figures)
    print(f"{len(chosen)} scenarios as promised")


def all_runs(args, cells, folder):
    """The rows of `cells`, in their order, `--jobs` at a time."""
    done, waiting, lock = {}, list(cells), threading.Lock()

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                cell = waiting.pop(0)
            done[cell.scenario.name, cell.mode, cell.setting] = row_of(cell, run(args, cell, folder))
            say(f"{cell.scenario.name}, {cell.mode}, {cell.setting}")

    threads = [threading.Thread(target=work) for _ in range(args.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [cell for cell in cells if (cell.scenario.name, cell.mode, cell.setting) not in done]
    if missing:
        raise SystemExit(f"no figures of: {missing}")
    return [done[cell.scenario.name, cell.mode, cell.setting] for cell in cells]


def table(chosen, rows):
    """A line for each scenario: what the client got, and the longest that it waited for that."""
    columns = [(mode, setting) for setting in SETTINGS for mode in MODES]
    found = {(row["scenario"], row["mode"], row["setting"]): row for row in rows}
    lines = ["| the provider | " + " | ".join(f"{mode}, {setting}" for mode, setting in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for scenario in chosen:
        cells = [cell_of(scenario, found.get((scenario.name, *column))) for column in columns]
        lines.append(f"| **{scenario.name}**: {scenario.what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell_of(scenario, row):
    if row is None:
        return ""
    said = verdict(scenario, row)
    if said == "pass":
        end = "served" if scenario.end == "served" else "told: " + ", ".join(map(str, sorted(row["statuses"])))
        return f"{end}, ≤ {in_ms(row['slowest_ms'])}"
    if said == "said":
        return f"{row['outcomes'].get('served', 0)} served, {row['outcomes'].get('cut', 0)} ended by an error"
    return f"**{said}**"


PAGE = """# Ways to fail

Written by `make scenarios`; nothing here is written by hand.

{count} ways in which the provider of the cheaper model fails while another model's provider is well, asked by the official
Python client with `max_retries=0`: whole answers and streams, with default settings and with `[routing] stream = "buffered"`.
{requests} requests in each cell, sent at {per_second} a second from the moment the fault began, after {warm_up} s of health. *Served* is an
answer whose text is all of it; beside it stands the longest that a client waited for its end (usually {usual} ms).

{table}

A stream that is passed on as it comes cannot be saved once its client has read a part: it ends with an error, and never
looks whole. One that stalls there is ended after `idle` (2 min), or by its client before ({timeout} s here). With `buffered`
nothing is passed on before all of it came.

Measured with the {build} build on {cpu}, {cores} cores, {jobs} cells at a time.
"""


def write_page(docs, figures):
    rows, about = figures["rows"], figures["about"]
    text = PAGE.format(count=len(SCENARIOS), requests=FAULT_S * PER_SECOND, per_second=PER_SECOND, warm_up=WARM_UP_S,
                       table=table(SCENARIOS, rows), timeout=TIMEOUT_S, build=about["build"], cpu=about["cpu"],
                       cores=about["cores"], jobs="two", usual=80 + 20 * (TOKENS - 1))
    (docs / "scenarios.md").write_text(text)


if __name__ == "__main__":
    main()
