"""The rows of `make attacks` as tables and as docs/attacks.md.

It must never leave out a row, or a request that was not served.
"""

from outage_stage import in_ms

WHERE = {
    "alone": "One region, which answers what asks for a failure with it",
    "one of two": "Two regions; the first fails what asks for it, the second serves everything",
    "both of two": "Two regions, and both fail what asks for it",
}
WHO = {"one key": "one key", "a team": "two keys of one team", "a dozen": "a dozen keys, a quarter of the traffic"}


def cell(row):
    served = f"{row['served']:,} of {row['sent']:,}"
    closed = f", closed {row['closed']} times" if row["closed"] else ""
    p99 = in_ms(row["quick_p99"] * 1000) if row["quick_p99"] else "–"
    return f"{served if row['served'] == row['sent'] else f'**{served}**'}; {p99}{closed}"


def table(rows):
    """A line for each failure: served of sent and the p99 of quick requests, for each kind of attacker."""
    who = [name for name in WHO if any(row["who"] == name for row in rows)]
    lines = ["| what is provoked | attacks | " + " | ".join(WHO[name] for name in who) + " |", "|---" * (len(who) + 2) + "|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = {row["who"]: row for row in rows if row["kind"] == kind}
        cells = [cell(of[name]) if name in of else "" for name in who]
        lines.append(f"| {kind} | {sum(row['attacks'] for row in of.values()):,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(rows):
    parts = []
    for where, words in WHERE.items():
        some = [row for row in rows if row["where"] == where]
        if some:
            sent, served = sum(row["sent"] for row in some), sum(row["served"] for row in some)
            slow = max((row["slow_p99"] or 0 for row in some), default=0)
            parts.append(f"### {words}\n\n{served:,} of {sent:,} honest requests served ({served / sent:.3%}); the slowest p99 of "
                         f"slow ones is {in_ms(slow * 1000)}.\n\n{table(some)}")
    return "\n\n".join(parts)


def write(folder, figures):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attacks.md").write_text(page(figures["rows"], figures["about"]))


def page(rows, about):
    sent, served, attacks = (sum(row[name] for row in rows) for name in ["sent", "served", "attacks"])
    lost = "\n".join(f"- {row['kind']}, {row['who']}, {row['where']}: {why}" for row in rows for why in row["unserved"])
    return f"""# One key's failures, and everybody else

Written by `make attacks`; nothing here is written by hand.

Keys whose every request makes its provider fail, beside two keys whose requests are to be served: {len(rows)} rows, each a
gateway with default settings of its own. **{served:,} of {sent:,} honest requests were served**, beside {attacks:,} attacks. Promised are
99.9 % where a second region is healthy, and 99 % where there is one; `make attacks` ends with an error otherwise.

A cell has the honest requests served, of those sent, and the 99th percentile of how long the quick ones took; and how
often a breaker opened, or a deployment rested, for all keys while honest requests were sent.

{tables(rows)}

## Not served

{lost or "None."}

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The {about["build"]} binary; attackers, honest clients
and providers share the cores with it, and several rows run at a time: the times are those of a busy machine. All traffic
is over loopback.

One key, or each of two keys of one team, sends 16 requests at a time, each as soon as another has ended, up to its 1,200 a
minute. First for 1.3 s alone, so that what it meets is all that is known; then honest requests arrive, 12 slow ones
at once and 30 a second; they stop for 1.3 s, so that no success of theirs holds anything off; and they arrive again. A dozen
keys without a team send a quarter of all requests throughout.

A provider answers a quick request within 50 ms. One of five takes 1.3 to 1.4 s, which is longer than the gateway waits
before it looks for silence. Half of all requests are streamed. *Served* is an answer that is complete: its last frame
came, and no error in it.

`python3 benches/attacks.py --kinds silence --who "one key" --where alone` repeats one row.
"""
