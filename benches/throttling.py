"""Random 429s at one and at three regions: the official Python client directly, and the same through the gateway,
in one run.

The client waits and retries as it does unless told otherwise, on both sides. Direct, it asks the first region; all
regions throttle alike, and the k-th arrival of a request is throttled on both sides or on neither. The gateway has default settings. With `credentials`,
there is one region whose first credential is always throttled; direct, the client has the second one.

It must never let one side have an easier provider: both ask the same process at the same time and meet the same draws.

Start reading in `measure`.
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
from processes import KEY, say

REGIONS = ["us-east", "eu-central", "ap-south"]
SHARES = [0.01, 0.05, 0.30]
RETRY_AFTER = [None, "1", "30"]
#: Requests a second on each side.
PER_SECOND = 20
SECONDS = 30
#: Cells measured at a time.
JOBS = 3

EXPLAINED = f"""Every provider answers a random share of the requests with 429. The official client alone, against the same
providers at the same time, beside the same client through the gateway: {PER_SECOND} requests a second on each side for {SECONDS} s,
one token each, timed to the whole answer; on both sides the client retries twice, as it does unless told otherwise, and has a
timeout of 30 s. The first, second, … arrival of a request is throttled on both sides or on neither. *First of two credentials*
is one region that always throttles the first; the client alone is given the second one."""


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    share: float
    regions: int
    retry_after: str | None
    #: The first credential of two is always throttled.
    credentials: bool = False

    @property
    def name(self):
        return f"throttle-{self.share}-{self.regions}-{self.retry_after}-{self.credentials}"


CELLS = [Cell(share, regions, retry_after) for retry_after in RETRY_AFTER for regions in (1, 3) for share in SHARES]
CELLS += [Cell(1.0, 1, retry_after, True) for retry_after in RETRY_AFTER]


def measure(tierway, folder, cells=CELLS, seconds=SECONDS):
    """The figures of every cell, in order."""
    done, waiting, lock = {}, list(cells), threading.Lock()

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                cell = waiting.pop(0)
            done[cell] = one(tierway, folder, cell, seconds)
            say(f"throttling: {cell.name}")

    threads = [threading.Thread(target=work) for _ in range(JOBS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) < len(cells):
        raise SystemExit("cells of the throttle table have no figures")
    return [done[cell] for cell in cells]


def one(tierway, folder, cell, seconds):
    names = REGIONS[:cell.regions]
    secrets = {"BENCH_FIRST": "sk-provider-first", "BENCH_SECOND": "sk-provider-second"}
    credential = '["env:BENCH_FIRST", "env:BENCH_SECOND"]' if cell.credentials else '"env:BENCH_CREDENTIAL"'
    with Providers(names) as providers:
        for name in names:
            providers.fail(name, kind="status", status=429, share=cell.share, retry_after=cell.retry_after,
                           credential=secrets["BENCH_FIRST"] if cell.credentials else None)
        sections = [provider_section(name, providers.ports[name], name, credential) for name in names]
        sections.append(model_section("cheap", names))
        with Stage(tierway, folder, cell.name, providers, sections, secrets) as stage:
            direct = {"name": "direct", "base_url": f"http://127.0.0.1:{providers.ports[names[0]]}/v1",
                      "key": secrets["BENCH_SECOND"] if cell.credentials else KEY}
            load = {"model": "cheap", "tokens": 1, "per_second": 2 * PER_SECOND, "seconds": seconds, "timeouts": [30],
                    "modes": ["whole"], "targets": [direct, stage.target]}
            with Load(load) as under_way:
                requests = under_way.requests()
    return {**vars(cell), "sides": {side: summary([request for request in requests if request["target"] == side])
                                    for side in ("direct", "gateway")}}


def summary(requests):
    took = [request["end_ms"] for request in requests if request["outcome"] == "served"]
    attempts = [request["attempts"] for request in requests if request["attempts"]]
    failed = [request for request in requests if request["outcome"] != "served"]
    return {
        "requests": len(requests), "failed": len(failed), "p50": quantile(took, 0.5), "p99": quantile(took, 0.99),
        "mean": sum(took) / len(took) if took else None, "resent": sum(request["sends"] > 1 for request in requests),
        "attempts": sum(attempts) / len(attempts) if attempts else None,
        "errors": [request["error"] for request in failed][:3],
    }


def table(cells):
    head = ["throttled", "regions", "Retry-After", "requests, each side", "failed: direct", "**gateway**", "p50: direct", "gateway",
            "p99: direct", "**gateway**", "mean: direct", "gateway", "sent again by the client: direct", "gateway", "attempts of the gateway"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for cell in cells:
        direct, gateway = cell["sides"]["direct"], cell["sides"]["gateway"]
        cells_of_row = [
            "first of two credentials" if cell["credentials"] else f"{cell['share']:.0%}", cell["regions"],
            "none" if cell["retry_after"] is None else f"{cell['retry_after']} s", direct["requests"],
            direct["failed"], f"**{gateway['failed']}**", in_ms(direct["p50"]), in_ms(gateway["p50"]), in_ms(direct["p99"]),
            f"**{in_ms(gateway['p99'])}**", in_ms(direct["mean"]), in_ms(gateway["mean"]), direct["resent"], gateway["resent"],
            "–" if gateway["attempts"] is None else f"{gateway['attempts']:.2f}",
        ]
        lines.append("| " + " | ".join(map(str, cells_of_row)) + " |")
    errors = collections.Counter(error for cell in cells for error in cell["sides"]["gateway"]["errors"])
    return "\n".join(lines + [""] * bool(errors) + [f"- the gateway: {error}" for error, _ in errors.most_common(6)])


def broken(cells):
    """What cost more through the gateway than directly. A p99 may be later by 50 ms and a tenth, on a loaded machine."""
    found = []
    for cell in cells:
        direct, gateway = cell["sides"]["direct"], cell["sides"]["gateway"]
        what = "the first of two credentials throttled" if cell["credentials"] else f"{cell['share']:.0%} throttled"
        name = f"{what}, {cell['regions']} region(s), Retry-After {cell['retry_after'] or 'none'}"
        if gateway["failed"] > direct["failed"]:
            found.append(f"{name}: {gateway['failed']} failed, directly {direct['failed']}")
        # It is of those that were served: where more than a hundredth failed directly alone, of other requests.
        alike = direct["failed"] - gateway["failed"] <= direct["requests"] / 100
        if gateway["p99"] is None or (direct["p99"] is not None and alike and gateway["p99"] > direct["p99"] * 1.1 + 50):
            found.append(f"{name}: p99 {in_ms(gateway['p99'])}, directly {in_ms(direct['p99'])}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--small", action="store_true", help="a few seconds, without the cells that wait 30 s")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    if args.draw:
        cells = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        wanted = [cell for cell in CELLS if cell.retry_after != "30"] if args.small else CELLS
        with tempfile.TemporaryDirectory(prefix="tierway-throttling-") as folder:
            cells = measure(args.tierway, Path(folder), wanted, 6 if args.small else args.seconds)
        if args.figures:
            args.figures.write_text(json.dumps(cells))
    print(table(cells))
    if found := broken(cells):
        raise SystemExit("\n".join(["costs more than direct:", *found]))


if __name__ == "__main__":
    main()
