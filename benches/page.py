"""The figures as docs/performance.md: tables and hand-drawn bars, all made from one run.

It must never say more than was measured: machine, lengths and spread stand beside every figure.
"""

import statistics
from dataclasses import dataclass
from html import escape

ONE = "nginx"


@dataclass(frozen=True)
class Row:
    """One line of the table: what it is called, how it is shown, what is promised of it."""

    measure: str
    name: str
    form: str = "{:,.0f}"
    #: The measure of the same load without a gateway, to be subtracted.
    added: bool = False
    #: Whether it may be set against nginx.
    ratio: bool = True
    target: str = ""


ROWS = [
    Row("whole_cpu_us", "CPU µs per whole request", "{:.1f}", target="≤ 1.6 × nginx"),
    Row("whole_per_second", "requests per second, one core", target="≥ 0.6 × nginx"),
    Row("slow_p50_us", "added at 200/s: p50, µs", added=True, target="≤ 100 µs"),
    Row("slow_p99_us", "added at 200/s: p99, µs", added=True, target="≤ 2 × nginx"),
    Row("fast_p50_us", "added at 2,000/s: p50, µs", added=True, target="≤ 100 µs"),
    Row("fast_p99_us", "added at 2,000/s: p99, µs", added=True, target="≤ 2 × nginx"),
    Row("frame_cpu_us", "CPU µs per streamed frame", "{:.1f}", target="≤ 1.2 × nginx"),
    Row("first_token_p50_us", "added to the first token: p50, µs", added=True, target="≤ nginx"),
    Row("first_token_p99_us", "added to the first token: p99, µs", added=True),
    Row("stream_kib", "KiB per open stream", "{:.1f}", target="≤ 36 KiB"),
    Row("large_cpu_us", "CPU µs per 1 MiB body", target="≤ 1.3 × nginx"),
    Row("refused_cpu_us", "CPU µs per refusal (401)", "{:.1f}", target="≤ 0.5 × a request"),
    Row("idle_mib", "MiB idle", "{:.1f}", ratio=False, target="≤ 25 MiB"),
    Row("binary_mib", "MiB binary", "{:.1f}", ratio=False, target="≤ 25 MiB"),
    Row("ready_ms", "ms from start to ready", "{:.0f}", ratio=False, target="≤ 50 ms"),
]

#: What is drawn: each a plot of its own, because no two share a unit.
PLOTS = ["whole_cpu_us", "frame_cpu_us", "stream_kib", "large_cpu_us"]


def values(figures, name, row):
    """One value per round; what the load takes by itself is taken off round by round."""
    own = figures[name].get(row.measure, [])
    if not row.added:
        return own
    if name == "direct":
        return []
    return [value - base for value, base in zip(own, figures["direct"][row.measure])]


def middle(figures, name, row):
    found = values(figures, name, row)
    return statistics.median(found) if found else None


def cell(figures, name, row):
    found = values(figures, name, row)
    if not found:
        return "–"
    form = row.form.format
    text = form(statistics.median(found))
    if len(found) > 1:
        text += f" ({form(min(found))}–{form(max(found))})"
    base = middle(figures, ONE, row)
    # A difference near nothing, or below it, has no meaningful ratio.
    if row.ratio and name != "direct" and base and base >= 1:
        text += f" · **{statistics.median(found) / base:.2f}**"
    return text


def table(figures):
    """Every measure of every contender: median (smallest–largest round) · ratio to nginx."""
    names = list(figures)
    lines = ["| | " + " | ".join(names) + " | target |", "|---" * (len(names) + 2) + "|"]
    for row in ROWS:
        cells = [cell(figures, name, row) for name in names]
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {row.target} |")
    return "\n".join(lines)


def plot(figures, row):
    """Bars from nothing, the range of the rounds as a line across the end of each."""
    shown = {name: found for name in figures if (found := values(figures, name, row))}
    most = max(max(found) for found in shown.values()) or 1
    left, width, step, top = 190, 400, 34, 40
    height = top + step * len(shown) + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" '
        'font-family="system-ui, sans-serif" font-size="14" role="img">',
        f"<title>{escape(row.name)}</title>",
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="8" y="24" font-weight="600">{escape(row.name)}</text>',
    ]
    for number, (name, found) in enumerate(shown.items()):
        y = top + number * step
        scale = lambda value: width * value / most  # noqa: E731
        bar, low, high = (scale(value) for value in (statistics.median(found), min(found), max(found)))
        fill = "#0b6e4f" if name == "Tierway" else "#b8c0c8"
        out += [
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{bar:.1f}" height="22" fill="{fill}"/>',
            f'<path d="M{left + low:.1f} {y + 13}H{left + high:.1f}" stroke="#222222" stroke-width="2"/>',
            f'<text x="{left + high + 8:.1f}" y="{y + 18}">{row.form.format(statistics.median(found))}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])


def write(folder, figures, lengths, about):
    """The page and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row.measure: row for row in ROWS}
    for measure in PLOTS:
        (folder / f"{plot_name(measure)}.svg").write_text(plot(figures, rows[measure]))
    (folder / "performance.md").write_text(text(figures, lengths, about))


def plot_name(measure):
    return "performance-" + measure.replace("_", "-")


def text(figures, lengths, about):
    rows = {row.measure: row.name for row in ROWS}
    plots = "\n".join(f"![{rows[measure]}]({plot_name(measure)}.svg)" for measure in PLOTS)
    warning = (
        "\n> A quick run, on a machine that may have been busy: a look, not figures to hold anybody to.\n"
        if about["quick"]
        else ""
    )
    refused, whole = (figures["Tierway"][name] for name in ("refused_cpu_us", "whole_cpu_us"))
    share = statistics.median(refused) / statistics.median(whole)
    command = "python3 benches/compare.py --quick" if about["quick"] else "make bench"
    return f"""# Performance

Written by `{command}`; nothing here is written by hand. Beside Tierway stand nginx, which does
nothing but hand on, and the least that could be written instead: a hundred lines of axum and reqwest.
{warning}
Each cell: the median of {lengths.rounds} rounds (smallest–largest) · **its ratio to nginx**. Another machine has other
figures; the ratios travel better.

{table(figures)}

A refusal costs Tierway {share:.2f} of a served request.

{plots}

## What was measured

One interleaved run of {about["minutes"]:.0f} minutes: each measure of each contender in turn, round after round.
{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The gateway has core
{about["gateway_core"]}; provider and load share core {about["load_core"]}. Everything speaks over loopback, without TLS.

- **direct**: the load straight to the provider, a program that answers at once. What it takes is
  subtracted wherever a row says *added*.
- **nginx** {about["nginx"]}: one worker, buffering off both ways, upstream kept alive, the key checked by a `map`, no access
  log.
- **bare axum + reqwest**: `benches/rig/pass.rs`. Looks the key up, parses `model`, hands on.
- **Tierway**: everything on. A key with a rate, a token and a concurrency limit, two deployments balanced
  by latency, breakers, a receipt and a line of the access log for every request, metrics.

| measure | load | of each, each round |
|---|---|---|
| whole answers | 64 connections, as fast as they go (`wrk`), 600-byte answers | {lengths.closed} s |
| added latency | 200 and 2,000 a second, timed from when each was due | {lengths.slow} s, {lengths.fast} s |
| streams | {lengths.streams} at once, 50 frames 20 ms apart, the request's own cost spread over its frames | {lengths.streams * lengths.stream_times} streams |
| open streams | {lengths.held:,} after their first frame, in a process that has just started | once |
| 1 MiB bodies | 8 connections, as fast as they go (`wrk`) | {lengths.large} s |
| refusals | 64 connections with a wrong key (`wrk`) | {lengths.refused} s |

Processor time is the kernel's own account of the gateway's processes, in hundredths of a second;
memory is resident memory. An answer that is not the one asked for ends the run.

## To repeat it

`make bench` on a machine with nothing else to do (Debian: `apt install wrk nginx-light`);
`python3 benches/compare.py --quick` for a look, `--help` for more. The parts by themselves, in
nanoseconds: `cargo bench --bench parts`.
"""
