"""The cases of `make burst` as tables and as docs/burst.md.

It must never leave out a case, or what was refused in it.
"""

from outage_stage import in_ms

KEYS = {"pro": "`pro`", "standard": "`standard`", "hostile": "the hostile one, `standard`", "failing": "the failing one, `standard`"}
SHOWS = {
    "burst": lambda seen: "After the end of the burst, its last refused request was sent again at "
                          f"{max(0, seen['recovered_s']['sendings']):.1f} s; `pro` was as usual at {seen['recovered_s']['pro']:.1f} s, `standard` at "
                          f"{seen['recovered_s']['standard']:.1f} s. `standard` was served {seen['kept']:.1%} of what the provider could carry "
                          "beside `pro`",
    "gateway": lambda seen: SHOWS["burst"](seen),
    "adaptive": lambda seen: f"{SHOWS['burst'](seen)}; the limit stood at {seen['limit']} at the end",
    "hostile": lambda seen: "Answers in the burst: " + ", ".join(f"{KEYS[key]} {count:,}" for key, count in seen["answered"].items()),
    "failing": lambda seen: f"Breakers opened {seen['opened']} times",
    "lent": lambda seen: f"{seen['honoured']:,} reservations honoured, {seen['missed']} missed: {honoured_share(seen):.2%}; p99 by `Pro/` names "
                         f"{in_ms(seen['pro']['p99'][1])} beside the others, {in_ms(seen['pro']['p99'][0])} alone; {seen['lent']:,} answers of "
                         "others on dedicated places",
}


def honoured_share(seen):
    return seen["honoured"] / max(1, seen["honoured"] + seen["missed"])


def change(usual, burst):
    return f"{burst / usual - 1:+.1%}" if usual and burst else "–"


def table(case, seen):
    head = ["key", "requests in the burst", "sendings", "served", "refused at last", "failed", "p50: usual", "in the burst",
            "p99: usual", "**in the burst**", "change", "after it"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key, name in KEYS.items():
        if key not in seen:
            continue
        own = seen[key]
        cells = [name, *(f"{own[count]:,}" for count in ("sent", "sendings", "served", "refused", "failed")),
                 in_ms(own["p50"][0]), in_ms(own["p50"][1]), in_ms(own["p99"][0]), f"**{in_ms(own['p99'][1])}**",
                 change(own["p99"][0], own["p99"][1]), in_ms(own["p99"][2])]
        lines.append("| " + " | ".join(cells) + " |")
    asked = ", ".join(f"{most} at {name}" for name, most in seen["most"].items())
    return "\n".join([f"### {case.title[0].upper()}{case.title[1:]}", "", *lines, "",
                      f"{seen['requests']:,} requests; {seen['refusals']:,} refusals with 429 on the way, each with both forms of "
                      f"Retry-After; {seen['errors']} answers of 5xx or none. {SHOWS[case.name](seen)}. At most at a provider at once: {asked}."])


def tables(cases, seen):
    return "\n\n".join(table(case, seen[case.name]) for case in cases)


def earlier(runs):
    """What cases that were repeated had shown before."""
    if not runs:
        return ""
    lines = [f"- {run['case']}: p99 of `pro` {in_ms(run['pro']['p99'][0])} usually, {in_ms(run['pro']['p99'][1])} in the burst "
             f"({change(*run['pro']['p99'][:2])}), {run['pro']['refused']} of its requests refused" for run in runs]
    return ("\n## Repeated\n\nThese cases were repeated after the whole run, in which they had shown:\n\n" + "\n".join(lines) + "\n")


def write(folder, size, settled, adaptive_rise, cases, figures):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "burst.md").write_text(page(size, settled, adaptive_rise, cases, figures))


def page(size, settled, adaptive_rise, cases, figures):
    about, seen = figures["about"], figures["cases"]
    before, burst, after = size.phases
    lent = next(case.size for case in cases if case.name == "lent")
    return f"""# Ten times the usual load

Written by `make burst`; nothing here is written by hand.

A provider answers {size.slots} requests at once, each in {size.mean_ms} ms on average: {size.capacity:.0f} a second. Usually two keys ask for
{size.pro + size.standard} a second: `pro` (priority 8) for {size.pro}, `standard` (priority 1) for {size.standard}. Then for {burst} s `standard` asks
for {size.burst}: ten times the load. Refused requests are sent again as the official clients do: twice at most, after Retry-After.

{tables(cases, seen)}

## What is promised

With a limit that is known, `make burst` ends with an error unless the p99 of `pro` is within 10 % of what it usually is, none
of its requests is refused, nobody reads a 5xx, and every refusal is a 429 `slow_down` with both forms of Retry-After;
`standard` is served at least 90 % of the capacity that is left to it. After the burst, `pro` is as usual within 2 s, and
`standard` within 2 s of the last sending: its own refused requests come again for up to two retries. A hostile key takes
nothing from another one of its policy; a failing key opens no breaker. `Pro/` requests get their places in
99.9 % of all cases, with a p99 within 10 % of what it is without others.

Under an adaptive limit none of `pro`'s requests is refused, and its p99 is at most {adaptive_rise - 1:.0%} above what it usually is: the
limit is found by a slowdown, which everybody meets. Where what the provider carries is known, set it.

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The {about["build"]} binary; clients and
provider share the cores with it, and the loads are bound by the provider's places, not by the processor. An answer takes from
half to one and a half times the mean, by chance; what exceeds the provider's {size.slots} places would wait in its own queue, as at a model
server. {before} s of the usual load, {burst} s of the burst, {after} s after it; times are from when a request was due to its last
byte, over all its sendings, of those that were served. The first {settled} s of a phase, until it is steady, are in the
counts and not in its times. The hostile key is {size.workers} clients that send again at once when they are answered, and after 100 ms when they
are not. With `lend`, `Pro/` requests come {lent.reserved} times a second, for {lent.dedicated} dedicated places beside {lent.slots} shared ones, and an
answer takes {lent.mean_ms} ms on average. All traffic is over loopback.

`python3 benches/burst.py --cases gateway` repeats one case.
{earlier(figures.get("earlier"))}"""
