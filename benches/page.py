"""The figures as docs/performance.md: tables and bar plots, all made from one run.

It must never claim more than was measured: machine, lengths and spread are given with the figures.
"""

import statistics
from dataclasses import dataclass

import money
from plot import Panel, card, text as said

ONE = "nginx"

#: What the page says of another build, where there was one.
BEFORE = "- **Tierway before**: an earlier build with the same configuration, in the same run.\n"


@dataclass(frozen=True)
class Row:
    """One line of the table: its name, format and target."""

    measure: str
    name: str
    form: str = "{:,.0f}"
    #: The measure of the same load without a gateway, which is subtracted.
    added: bool = False
    #: Whether it may be compared with nginx.
    ratio: bool = True
    target: str = ""


ROWS = [
    Row("whole_cpu_us", "CPU µs per whole request", "{:.1f}", target="≤ 2.8 × nginx"),
    Row("whole_per_second", "requests per second, one core", target="≥ 0.6 × nginx"),
    Row("slow_cpu_us", "CPU µs per whole request at 200/s", "{:.0f}"),
    Row("fast_cpu_us", "CPU µs per whole request at 2,000/s", "{:.1f}"),
    Row("slow_p50_us", "added at 200/s: p50, µs", added=True, target="≤ 100 µs"),
    Row("slow_p99_us", "added at 200/s: p99, µs", added=True, target="≤ 2 × nginx"),
    Row("fast_p50_us", "added at 2,000/s: p50, µs", added=True, target="≤ 100 µs"),
    Row("fast_p99_us", "added at 2,000/s: p99, µs", added=True, target="≤ 1.5 × nginx"),
    Row("frame_cpu_us", "CPU µs per streamed frame", "{:.1f}", target="≤ 1.2 × nginx"),
    Row("first_token_p50_us", "added to the first token: p50, µs", added=True, target="≤ nginx"),
    Row("first_token_p99_us", "added to the first token: p99, µs", added=True),
    Row("stream_kib", "KiB per open stream", "{:.1f}", target="≤ 36 KiB"),
    Row("context_cpu_us", "CPU µs per 100 KB of context", target="≤ 1.4 × nginx"),
    Row("large_cpu_us", "CPU µs per 1 MiB body", target="≤ 1.4 × nginx"),
    Row("embedding_cpu_us", "CPU µs per embedding of 2,000 numbers", target="≤ 1.3 × nginx"),
    Row("fresh_cpu_us", "CPU µs per request on a connection of its own", "{:.1f}"),
    Row("tls_cpu_us", "CPU µs per whole request over TLS", "{:.1f}"),
    Row("refused_cpu_us", "CPU µs per refusal (401)", "{:.1f}", target="≤ 0.25 × a request"),
    Row("limited_cpu_us", "CPU µs per refusal (429)", "{:.1f}", target="≤ 0.25 × a request"),
    Row("syscalls", "system calls per whole request", "{:.1f}", target="≤ 5"),
    Row("idle_mib", "MiB idle", "{:.1f}", ratio=False, target="≤ 25 MiB"),
    Row("binary_mib", "MiB binary", "{:.1f}", ratio=False, target="≤ 25 MiB"),
    Row("ready_ms", "ms from start to ready", "{:.0f}", ratio=False, target="≤ 50 ms"),
]

#: The measures with a plot; each has its own, because no two have the same unit.
PLOTS = ["whole_cpu_us", "frame_cpu_us", "stream_kib", "large_cpu_us"]


def values(figures, name, row):
    """One value per round; the load's own time is subtracted round by round."""
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
    """Bars from zero, with the range of the rounds as a line across the end of each."""
    shown = {name: found for name in figures if (found := values(figures, name, row))}
    most = max(max(found) for found in shown.values()) or 1
    left, width, step, top = 170, 330, 30, 40
    out = [said(14, 24, row.name, "title")]
    for number, (name, found) in enumerate(shown.items()):
        y = top + number * step
        bar, low, high = (width * value / most for value in (statistics.median(found), min(found), max(found)))
        out += [
            said(left - 8, y + 16, name, "strong" if name == "Tierway" else "", "end"),
            f'<rect class="{"a" if name == "Tierway" else "b"}" x="{left}" y="{y + 2}" width="{bar:.1f}" height="20" rx="2"/>',
            f'<path class="range" d="M{left + low:.1f} {y + 12}H{left + high:.1f}"/>',
            said(left + max(bar, high) + 8, y + 16, row.form.format(statistics.median(found))),
        ]
    return card(left + width + 80, top + step * len(shown) + 12, row.name, out)


#: The panels of a growth plot: measure and title.
GROWTH = [("cpu_us", "CPU µs per whole request"), ("ready_ms", "ms from start to ready"), ("idle_mib", "MiB idle")]
#: Scales are marked in at most this many steps of 1, 2 or 5 times a power of ten.
STEPS = 5


def step_for(most):
    """The smallest such step that needs no more than `STEPS` of them."""
    return next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if step * STEPS >= most)


def growth_plot(title, unit, lines):
    """Three panels over the same sizes; `lines`: name to size to values."""
    width, height, gap, left, top = 210, 120, 62, 46, 66
    sizes = list(next(iter(lines.values())))
    out = [said(14, 24, title, "title")]
    for number, (measure, name) in enumerate(GROWTH):
        most = max(value[measure] for line in lines.values() for found in line.values() for value in found)
        step = step_for(most)
        top_value = step * (int(most // step) + 1)
        panel = Panel(left + number * (width + gap), top, width, height, (sizes[0], sizes[-1]), (0, top_value), x_log=True)
        out.append(said(panel.left, top - 12, name, "strong"))
        out += panel.grid({tick: f"{tick:,}" for tick in range(0, top_value + 1, step)})
        out += panel.x_axis({size: f"{size:,}" for size in sizes})
        for (_, line), kind in zip(lines.items(), ["a", "b"]):
            points = [(size, statistics.median(value[measure] for value in found)) for size, found in line.items()]
            out += [panel.line(points, kind), panel.dots(points, kind)]
    bottom = top + height
    out.append(said(left + 3 * width + 2 * gap, bottom + 34, unit, "dim", "end"))
    if len(lines) > 1:
        x = left
        for name, kind in zip(lines, ["a", "b"]):
            out += [f'<path class="{kind} line" d="M{x} {bottom + 30}h14"/>', said(x + 20, bottom + 34, name)]
            x += 40 + 6.2 * len(name)
    return card(left + 3 * width + 2 * gap + 36, bottom + 46, title, out)


def growth_table(lines):
    out = ["| | " + " | ".join(name for _, name in GROWTH) + " |", "|---" * (len(GROWTH) + 1) + "|"]
    for shape, line in lines.items():
        for size, found in line.items():
            cells = [spread([value[measure] for value in found]) for measure, _ in GROWTH]
            out.append(f"| {size:,} {shape} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def spread(found, form="{:,.1f}"):
    middle = form.format(statistics.median(found))
    return middle if len(found) == 1 else f"{middle} ({form.format(min(found))}–{form.format(max(found))})"


def open_streams_table(open_streams):
    """Memory per stream, and the first tokens of new streams."""
    names = ["KiB per open stream", "first token alone: p50, µs", "p99", "meanwhile: p50, µs", "p99"]
    keys = ["kib", "alone_p50_us", "alone_p99_us", "meanwhile_p50_us", "meanwhile_p99_us"]
    out = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, lines in open_streams.items():
        if isinstance(lines, list):
            found = [[line[key] for line in lines if key in line] for key in keys]
            forms = ["{:,.1f}"] + ["{:,.0f}"] * 4
            cells = [spread(values, form) if values else "–" for values, form in zip(found, forms)]
            out.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def write(folder, seen, lengths, about):
    """Writes the page and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row.measure: row for row in ROWS}
    for measure in PLOTS:
        (folder / f"{plot_name(measure)}.svg").write_text(plot(seen["figures"], rows[measure]))
    keys, deployments = by_shape(seen["growth"])
    (folder / "performance-keys.svg").write_text(growth_plot("From ten keys to a hundred thousand", "keys", keys))
    (folder / "performance-deployments.svg").write_text(
        growth_plot("From three deployments to a thousand", "deployments", deployments)
    )
    (folder / "performance.md").write_text(text(seen, lengths, about))


def by_shape(growth):
    keys = {shape: growth[shape] for shape in ["keys", "stored keys"]}
    return keys, {shape: line for shape, line in growth.items() if shape not in keys}


def plot_name(measure):
    return "performance-" + measure.replace("_", "-")


def text(seen, lengths, about):
    figures, open_streams = seen["figures"], seen["open_streams"]
    keys, deployments = by_shape(seen["growth"])
    rows = {row.measure: row.name for row in ROWS}
    plots = "\n".join(f"![{rows[measure]}]({plot_name(measure)}.svg)" for measure in PLOTS)
    warning = (
        "\n> A quick run, on a machine that may have been busy: a quick check, not reference figures.\n"
        if about["quick"]
        else ""
    )
    middle_of = {name: statistics.median(figures["Tierway"][f"{name}_cpu_us"]) for name in ("refused", "limited", "whole")}
    unknown, limited = (middle_of[name] / middle_of["whole"] for name in ("refused", "limited"))
    command = "python3 benches/compare.py --quick" if about["quick"] else "make bench"
    return f"""# Performance

Written by `{command}`; nothing here is written by hand. Tierway is compared with nginx and HAProxy, which
only forward, and with a minimal proxy: a hundred lines of axum and reqwest.
{warning}
Each cell: the median of {lengths.rounds} rounds (smallest–largest) · **its ratio to nginx**. Another machine has other
figures; the ratios differ less.

{table(figures)}

A refusal costs Tierway {unknown:.2f} of a served request (401) and {limited:.2f} (429). For the reasons, see [where the time goes](where-time-goes.md).

{plots}

## {open_streams["streams"]:,} open streams

Open at the same time, each after its first token; for {lengths.fast} s 200 new streams a second go through the same process,
before (*alone*) and while they are open (*meanwhile*). A stream needs two descriptors, and this system allows {open_streams["files"]:,} to a
process: half of them, less a few, are open.

{open_streams_table(open_streams)}

## Money

The same gateway in five states, whole answers: what a receipt on disk, budgets held before each request,
and a stored key with prepaid credit add to a request. **The ratio is to the first.** `python3 benches/money.py`
prints this table alone.

{money.table(seen["money"])}

## Growth

The same request to configurations of another size: three providers, the last key or model of the file.

![From ten keys to a hundred thousand](performance-keys.svg)
![From three deployments to a thousand](performance-deployments.svg)

{growth_table(keys)}

{growth_table(deployments)}

## What was measured

One interleaved run of {about["minutes"]:.0f} minutes: each measure of each contender in turn, round after round.
{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The gateway has core
{about["gateway_core"]}; provider and load share core {about["load_core"]}. All traffic is over loopback.

Where requests come as fast as they go, a slower contender finds provider and load asleep more often, and pays for waking
them; the fastest never does. At a fixed rate all find them asleep alike: those rows compare the work itself.

- **direct**: the load straight to the provider, a program that answers at once. What it takes is
  subtracted wherever a row says *added*.
- **nginx** {about["nginx"]}: one worker, buffering off both ways, upstream kept alive, the key checked by a `map`, no access
  log.
- **HAProxy** {about["haproxy"]}: one thread, connections to the provider reused, the key checked by a condition, no log.
- **bare axum + reqwest**: `benches/rig/pass.rs`. Looks the key up, parses `model`, forwards.
{BEFORE if "Tierway before" in figures else ""}- **Tierway**: every feature on. A key with a rate, a token and a concurrency limit, two deployments balanced
  by latency, breakers, a receipt on the disk (SQLite) and a line of the access log for every request, metrics.

| measure | load | of each, each round |
|---|---|---|
| whole answers | 64 connections, as fast as they go (`wrk`), 600-byte answers | {lengths.closed} s |
| added latency | 200 and 2,000 a second, timed from when each was due | {lengths.slow} s, {lengths.fast} s |
| streams | {lengths.streams} at once, 50 frames 20 ms apart, the request's own cost spread over its frames | {lengths.streams * lengths.stream_times} streams |
| open streams | {lengths.held:,} after their first frame, in a process that has just started | once |
| 100 KB of context, embeddings | 32 connections, as fast as they go (`wrk`) | {lengths.large} s |
| 1 MiB bodies | 8 connections, as fast as they go (`wrk`) | {lengths.large} s |
| a connection for each | 16 at a time, as fast as they go (`wrk`) | {lengths.large} s |
| over TLS | as whole answers, a fresh process for each round | {lengths.closed} s |
| refusals | 64 connections with a wrong key, and with a key beyond its limit (`wrk`) | {lengths.refused} s |
| system calls | 64 connections, as fast as they go, under `strace -c`, which makes each wait bring less | {lengths.traced} s, once |
| growth | 64 connections, as fast as they go (`wrk`), {lengths.growth_rounds} rounds, a fresh process for each size | {lengths.growth} s |

Processor time is what the kernel accounts to the gateway's processes, in hundredths of a second;
memory is resident memory. An answer other than the requested one ends the run.

## To repeat it

`make bench` on a machine with nothing else to do (Debian: `apt install wrk nginx-light haproxy strace`);
`python3 benches/compare.py --quick` for a quick check, `--help` for more. The parts by themselves, in
nanoseconds: `cargo bench --bench parts`.
"""
