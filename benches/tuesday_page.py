"""What the official client saw of each fault, as tables and as docs/tuesday.md.

It must never omit a request that failed: the first three errors of each row are printed with it.
"""

import throttling
from outage_stage import in_ms

NAMES = {
    "503": ("503", "answers every new request with a 503 at once; streams under way go on"),
    "429": ("429", "answers every new request with a 429 at once, without Retry-After; streams under way go on"),
    "429-some": ("429 to 5 %", "as before, for a random twentieth of the requests"),
    "black-hole": ("black hole", "accepts no connection, and its queue of connections is full, so that the system drops "
                   "every further SYN; on connections made before nothing more is sent"),
    "silent": ("silent", "accepts connections and reads requests; nothing more is sent, on streams under way neither"),
    "slow": ("slow", "its first token and every further one take 20 times as long: 1.6 s, and 5.2 s for a whole answer"),
    "cut-late": ("cuts late", "resets the connection of whatever is not complete five seconds after its request; streams of this "
                 "run have 12 tokens, 500 ms apart; whole answers take 0.3 s as ever, so that none is met"),
}
PROVIDERS = {"cheap-east": "failing", "cheap-west": "second region", "middle": "fallback", "best": "premium"}


def added(row, window):
    """How much later than before, at the 99th percentile."""
    p99, before = row[window]["p99"], row["before"]["p99"]
    return "–" if p99 is None or before is None else f"{p99 - before:+,.0f} ms"


def served_by(row):
    total = sum(row["served_by"].values()) or 1
    return ", ".join(f"{PROVIDERS.get(name, name or 'unknown')} {number / total:.0%}" for name, number in row["served_by"].items())


COLUMNS = [
    ("fault", lambda row: NAMES[row["fault"]][0]),
    ("client's timeout", lambda row: f"{row['timeout']} s"),
    ("requests", lambda row: f"{row['requests']:,}"),
    ("**failed**", lambda row: f"**{row['failed']:,}**"),
    ("cut", lambda row: f"{row['cut']:,}"),
    ("cut, begun 10 s or more into the fault", lambda row: f"{row['cut_later']:,}"),
    ("sent again by the client", lambda row: f"{row['resent']:,}"),
    ("before: p50", lambda row: in_ms(row["before"]["p50"])),
    ("p99", lambda row: in_ms(row["before"]["p99"])),
    ("added to p99, first 2 s", lambda row: added(row, "first")),
    ("added to p99, after", lambda row: added(row, "after")),
    ("the slowest", lambda row: in_ms(max(filter(None, [row["first"]["max"], row["after"]["max"]]), default=None))),
    ("attempts", lambda row: "–" if row["attempts"] is None else f"{row['attempts']:.2f}"),
    ("served by", served_by),
]


def table(rows):
    lines = ["| " + " | ".join(name for name, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(form(row) for _, form in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def errors(rows):
    """The first errors of every row that has one."""
    lines = []
    for row in rows:
        where = f"{NAMES[row['fault']][0]}, {row['timeout']} s"
        lines += [f"- {where}: failed {error}" for error in row["errors"]]
        lines += [f"- {where}: {number:,} cut: {error}" for error, number in row["cuts"]]
    return "\n".join(lines)


def tables(rows):
    parts = []
    for regions in sorted({row["regions"] for row in rows}):
        for mode in sorted({row["mode"] for row in rows}, reverse=True):
            some = [row for row in rows if (row["regions"], row["mode"]) == (regions, mode)]
            if some:
                what = "Whole answers" if mode == "whole" else "Streams, to the first token"
                place = "the cheapest model has one provider" if regions == 1 else "the cheapest model has a second region, which is healthy"
                parts.append(f"### {what}; {place}\n\n{table(some)}\n\n{errors(some)}".rstrip())
    return "\n\n".join(parts)


def write(folder, rows, throttled, size, about):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tuesday.md").write_text(page(rows, throttled, size, about))


def page(rows, throttled, size, about):
    total = sum(row["requests"] for row in rows)
    failed = sum(row["failed"] for row in rows)
    done = "\n".join(f"- **{name}**: {what}." for name, what in NAMES.values())
    late = max(row["late_ms"] for row in rows)
    busy = f"\n**The machine was busy with something else in {about['busy']}: their times mean little.**\n" if about["busy"] else ""
    return f"""# The cheapest provider fails

Written by `make tuesday`; nothing here is written by hand.

Three tiers, each a model at a provider of its own: `default`, the cheapest, then `fallback`, then `premium`. After
{size["onset_s"]} s the provider of the cheapest model fails, and stays so for {size["fault_s"]} s, under {size["per_second"]} requests a second of the
official Python client for `default`: half of its clients wait 10 s, half 30 s. **{failed:,} of {total:,} requests failed.**

*Failed* is a request for which the client raised an exception, after its own retries (two, as it does unless told
otherwise), before any of the answer. *Cut* is a stream that had begun and ended by an error: another model cannot
continue half an answer. A stream that was cut and looked complete would end the run with an error. *Added to p99* compares
with the ten seconds before the fault; a request that was in flight when the fault began counts among those of the first
two seconds. Failed requests have no part in these times. *Attempts* are the gateway's for a request as the client sent it
last, from the fault on.
{busy}
{tables(rows)}

## Throttled, beside the client alone

{throttling.EXPLAINED}

{throttling.table(throttled)}

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The {about["build"]} binary with every setting of
`[routing]` at its default, two processes of clients and one of providers share the cores. All traffic is over loopback,
without TLS. The providers answer after 80 ms with ten tokens 20 ms apart. A request is timed from when it was due; at
the 99th percentile of a row it was begun at most {late:,.0f} ms later. Whole answers and streams have runs of their own, and so has
each fault. How the provider fails:

{done}

`python3 benches/tuesday.py --faults silent --modes whole --regions 1` repeats one run; `python3 benches/throttling.py` the
second table.
"""
