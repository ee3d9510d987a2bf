"""What clients saw while a region was lost, as docs/failover.md and docs/failover.svg.

It must never omit a way of failing because it is not in the plot: every way has its column of facts and
its table of seconds.
"""

from plot import Panel, card, text

KILL, RETURN = 10, 30

#: Ways of failing: what each is called, and what exactly is done to the provider.
WAYS = {
    "refuse": ("killed", "its process is ended by SIGKILL and started again on the same port: open connections are closed by "
               "the system, new ones refused"),
    "error": ("answers 500", "every new request is answered at once by a 500; streams under way go on"),
    "silent": ("falls silent", "its process is stopped by SIGSTOP and continued by SIGCONT: the system goes on accepting "
               "connections and bytes, and nothing is ever answered"),
    "drop": ("drops packets", "as silent, and its queue of connections (two) is filled from outside, so that the system "
             "drops every further SYN; connections made before swallow what is sent"),
    "reset": ("resets", "every connection is reset, those under way and new ones"),
}
#: Those in the plot.
DRAWN = ["refuse", "error", "silent"]


def in_ms(value):
    return "–" if value is None else f"{value:,.0f} ms"


def in_s(value, none="–"):
    return none if value is None else f"{value:.1f} s"


FACTS = [
    ("requests", lambda facts: f"{facts['requests']:,}"),
    ("**failed**: no answer, or an error", lambda facts: f"**{facts['failed']}**"),
    ("streams cut: begun in the lost region, ended by an error", lambda facts: facts["cut"]),
    ("cut streams that looked complete", lambda facts: facts["looked_complete"]),
    ("first token before the outage, p50", lambda facts: in_ms(facts["usual_ms"])),
    ("first token during the outage, p99", lambda facts: in_ms(facts["outage_p99_ms"])),
    ("requests slowed by more than 100 ms", lambda facts: facts["slow"]),
    ("of those, had tried the lost region; others waited for the machine", lambda facts: facts["slow_there"]),
    ("the slowest first token of those", lambda facts: in_ms(facts["slowest_ms"])),
    ("from the kill to the last request slowed by more than 100 ms",
     lambda facts: in_s(facts["last_slow_s"], "none was")),
    ("from the kill to the breaker's opening", lambda facts: in_s(facts["tripped_s"], "never")),
    ("attempts ended at the lost region during the outage", lambda facts: facts["attempts_lost"]),
    ("attempts for each request during the outage",
     lambda facts: f"{1 + facts['outage_extra'] / facts['outage_requests']:.3f}"),
    ("from the return to the region's first answer", lambda facts: in_s(facts["asked_back_s"], "not seen")),
    ("from the return until it serves 90 % of its third", lambda facts: in_s(facts["full_share_s"], "not seen")),
]


def facts_table(results):
    """One column for each way of failing."""
    lines = ["| | " + " | ".join(WAYS[how][0] for how in results) + " |", "|---" * (len(results) + 1) + "|"]
    for name, form in FACTS:
        lines.append(f"| {name} | " + " | ".join(str(form(facts)) for facts, _ in results.values()) + " |")
    return "\n".join(lines)


def seconds_table(rows, regions):
    names = ["s", "requests", "failed", "cut", "first token p50", "p99", *regions, "breaker"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        share = [f"{row['share'][name]:.0%}" for name in regions]
        cells = [row["second"], row["requests"], row["failed"], row["cut"], in_ms(row["p50_ms"]), in_ms(row["p99_ms"]), *share,
                 " → ".join(row["breaker"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


# --- the picture ------------------------------------------------------------------------------

LEFT, COLUMN, GAP, WIDTH = 62, 250, 20, 880
BREAKER = {"closed": ("good", "closed"), "open": ("bad", "open"), "half_open": ("warn", "half-open: one probe"), "resting": ("b", "resting")}


def picture(results, states, load):
    """A column for each way of failing: shares of the regions, failures, time to the first token, breaker states."""
    regions = list(next(iter(results.values()))[1][0]["share"])
    parts = legend(regions)
    for number, how in enumerate(DRAWN):
        left = LEFT + number * (COLUMN + GAP)
        facts, rows = results[how]
        parts += column(left, number == 0, how, facts, rows, states[how], regions, load)
    return card(WIDTH, 462, "One of three regions is lost at 10 s and comes back at 30 s: what clients saw", parts)


def legend(regions):
    out = [text(14, 24, "One of three regions is lost at 10 s and comes back at 30 s", "title"),
           text(WIDTH - 14, 24, "200 streams begun per second, no retries by clients", "dim", "end")]
    x = 14
    for kind, name in [("a", f"served by {regions[0]}, the one that is lost"), ("b", regions[1]), ("c", regions[2]),
                       ("warn", "streams cut"), ("bad", "requests failed")]:
        out += [f'<rect class="{kind}" x="{x}" y="36" width="10" height="10" rx="2"/>', text(x + 15, 45, name)]
        x += 15 + 6.2 * len(name) + 22
    return out


def column(left, first, how, facts, rows, states, regions, load):
    seconds = (0, load.seconds)
    ticks = {at: str(at) for at in range(0, load.seconds + 1, 10)}
    served = Panel(left, 84, COLUMN, 100, seconds, (0, load.per_second * 1.1))
    broken = Panel(left, 208, COLUMN, 44, seconds, (0, 80))
    first_token = Panel(left, 276, COLUMN, 104, seconds, (50, 20_000), y_log=True)
    strip = Panel(left, 402, COLUMN, 12, seconds, (0, 1))

    out = [text(left, 74, f"It {WAYS[how][0]}" if how != "refuse" else "It is killed", "strong")]
    out += served.grid({0: "0", 100: "100", 200: "200"}, first)
    below = [0] * len(rows)
    for region, kind in [(regions[1], "b"), (regions[2], "c"), (regions[0], "a")]:
        above = [low + row["share"][region] * (row["requests"] - row["failed"]) for low, row in zip(below, rows)]
        out.append(served.steps(below, above, kind))
        below = above
    out.append(served.steps(below, [row["requests"] for row in rows], "bad"))
    out += served.x_axis(ticks, False)

    out += broken.grid({0: "0", 40: "40", 80: "80"}, first)
    out.append(broken.steps([0] * len(rows), [row["cut_then"] for row in rows], "warn"))
    out.append(broken.steps([row["cut_then"] for row in rows], [row["cut_then"] + row["failed_then"] for row in rows], "bad"))
    out.append(text(left + COLUMN, 202, f"{facts['failed']} failed, {facts['cut']} cut of {facts['requests']:,}", "strong", "end"))
    out += broken.x_axis(ticks, False)

    out += first_token.grid({100: "100 ms", 1000: "1 s", 10_000: "10 s"}, first)
    for key, kind in [("p99_ms", "b"), ("p50_ms", "a")]:
        out.append(first_token.line([(row["second"] + 0.5, row[key]) for row in rows if row[key]], kind))
    out.append(first_token.dots([(at, took) for row in rows for at, took in row["slow"]], "warn", 2))
    out.append(text(left + COLUMN, 270, f"{facts['slow']} slowed by > 100 ms", "strong", "end"))
    out += first_token.x_axis(ticks, False)
    if first:
        out += [text(left - 6, 76, "req/s", "dim", "end"), text(left, 202, "cut or failed / s", "dim"),
                text(left, 270, "first token", "dim"), text(left - 6, 412, "breaker", "dim", "end")]
    out += [breaker_block(strip, begin, end, state) for begin, end, state in spans(states, load.seconds)]
    out += strip.x_axis(ticks)
    for panel in (served, broken, first_token, strip):
        out += [panel.mark(KILL), panel.mark(RETURN)]
    out += [text(served.x(KILL) + 4, 108, "lost", "strong"), text(served.x(RETURN) + 4, 108, "back", "strong")]
    if first:
        x = LEFT
        for kind, name in BREAKER.values():
            out += [f'<rect class="{kind}" x="{x}" y="441" width="10" height="10" rx="2"/>', text(x + 15, 450, name)]
            x += 15 + 6.2 * len(name) + 22
        out += key_to_first_token(x + 10)
    return out


def key_to_first_token(x):
    return [f'<path class="a line" d="M{x} 446h14"/>', text(x + 19, 450, "p50"), f'<path class="b line" d="M{x + 52} 446h14"/>',
            text(x + 71, 450, "p99"), f'<circle class="warn" cx="{x + 112}" cy="446" r="2.5"/>',
            text(x + 119, 450, "a request that waited > 100 ms longer"), text(WIDTH - 14, 450, "seconds", "dim", "end")]


def spans(states, end):
    """The samples of the breaker's state, merged: (begin, end, state)."""
    out = []
    for at, state in states:
        if not out or out[-1][2] != state:
            out.append([max(0, at), end, state])
            if len(out) > 1:
                out[-2][1] = at
    return out


def breaker_block(panel, begin, end, state):
    x = panel.x(begin)
    return f'<rect class="{BREAKER[state][0]}" x="{x:.1f}" y="{panel.top}" width="{max(1, panel.x(end) - x):.1f}" height="{panel.height}"/>'


# --- the page ---------------------------------------------------------------------------------


def write(folder, results, states, load, about):
    """Writes page and plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failover.svg").write_text(picture(results, states, load))
    (folder / "failover.md").write_text(page(results, load, about))


def page(results, load, about):
    regions = list(next(iter(results.values()))[1][0]["share"])
    done = "\n".join(f"- **{WAYS[how][0]}**: {WAYS[how][1]}." for how in results)
    seconds = "\n\n".join(
        f"<details><summary>It {'is ' if how == 'refuse' else ''}{WAYS[how][0]}</summary>\n\n{seconds_table(rows, regions)}\n\n</details>"
        for how, (_, rows) in results.items()
    )
    total = sum(facts["requests"] for facts, _ in results.values())
    return f"""# Losing a region

Written by `make failover`; nothing here is written by hand.

![One of three regions is lost at ten seconds and comes back at thirty](failover.svg)

Three regions serve one model. At {KILL} s **{regions[0]}** fails, at {RETURN} s it is healthy again. {load.per_second} streams a second are
started throughout, {total:,} in all; no client retries anything.

{facts_table(results)}

A stream that had begun when its region was lost cannot be continued elsewhere: its client has read half an answer, and
another model's second half would not match it. It ends with an error event and an aborted connection, and is
counted apart from requests that failed. *Slowed* is a first token more than 100 ms later than the median
before the outage.

In a region that falls silent, a lost request cannot be distinguished from a slow one: those in progress are made
elsewhere as well, streams that had begun wait for `idle` (2 min unless set otherwise). New requests avoid the region
within a second.

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The release binary with every setting of
`[routing]` at its default has core 0; providers and clients share core 1. Three runs go side by side, then
two. Each region is a provider process of its own; all traffic is over loopback, without TLS.

Each request asks for {load.frames} tokens {load.pace_ms} ms apart after {load.first_ms} ms, on a connection of its own, and is timed from when it was
due. How {regions[0]} fails:

{done}

## Second by second

Requests, percentiles and the share of each region are of the requests due in that second; failed and cut
count there too. The picture shows failures and cuts in the second in which they were seen. The breaker is
that of {regions[0]}, as `/metrics` showed it every 50 ms.

{seconds}
"""
