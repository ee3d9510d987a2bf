"""The page "where the time goes": instructions by the part of the program that spends them, of today's build.

Every instruction belongs to the function that contains it after inlining, and every function to one part, so that the
shares of a column add up. Whatever cannot be counted is not on the page.

Start reading in `write`.
"""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Profile:
    """One operation: all its instructions, and those of each function, by itself and with what it calls."""

    name: str
    total: float
    own: dict
    whole: dict


#: What the crates, and the rooms of Tierway, are called on the page.
PARTS = {
    "hyper: both sides' HTTP/1.1": "hyper hyper_util httparse http_body http_body_util want",
    "headers and URIs": "http",
    "reqwest: sending upstream": "reqwest hyper_rustls url idna percent_encoding form_urlencoded tower tower_http tower_service tower_layer "
    "sync_wrapper serde_urlencoded base64 mime ipnet",
    "tokio: tasks, timers, sockets": "tokio tokio_util futures_util futures_core futures_channel mio socket2 slab parking_lot "
    "parking_lot_core lock_api pin_project_lite",
    "Tierway: http, the client's side": "tierway::http axum axum_core",
    "Tierway: relay, the request's steps": "tierway::relay",
    "Tierway: domain, what decides": "tierway::domain",
    "Tierway: protocol, reading requests and answers": "tierway::protocol serde_json serde serde_core memchr itoa ryu zmij",
    "Tierway: upstream, the provider's side": "tierway::upstream",
    "Tierway: telemetry, metrics and access log": "tierway::telemetry prometheus tracing tracing_core tracing_subscriber log",
    "Tierway: everything else": "tierway arc_swap instructions",
    "SHA-256: finding the key": "sha2 digest hmac hybrid_array crypto_common block_buffer subtle tierway::domain::secret",
    "memory: mimalloc": "mimalloc",
    "memory: copying and comparing": "libc",
    "Rust's library: hashing, formatting, maps, time": "core alloc std hashbrown foldhash fastrand jiff jiff_core bytes smallvec indexmap",
}
OF_CRATE = {crate: part for part, crates in PARTS.items() for crate in crates.split()}
REST = "everything else"
#: A part below this share of every operation is in the last row.
LEAST = 0.01
#: How many functions of ours are listed.
FUNCTIONS = 25


def part(function):
    """The part that a function belongs to."""
    if re.match(r"_?mi_", function):
        return OF_CRATE["mimalloc"]
    if re.match(r"(__)?mem(cpy|move|set|cmp|chr)|__str|bcmp", function):
        return OF_CRATE["libc"]
    path = next(iter(re.findall(r"(?:[a-z_][a-z0-9_]*::)+", function)), "")[:-2]
    while path:
        if path in OF_CRATE:
            return OF_CRATE[path]
        path = path.rpartition("::")[0]
    return REST


def write(docs, profiles):
    """Writes the page of these profiles, the first of which is a whole request."""
    spent = [Counter() for _ in profiles]
    for parts, profile in zip(spent, profiles):
        for function, instructions in profile.own.items():
            parts[part(function)] += instructions
        # What belongs to no function: nothing that a tool could name.
        parts[REST] += profile.total - sum(profile.own.values())
    first = profiles[0]
    listed = [name for name in PARTS if any(parts[name] >= LEAST * each.total for parts, each in zip(spent, profiles))]
    listed.sort(key=lambda name: -spent[0][name])
    rows = [[name, *(parts[name] for parts in spent)] for name in listed]
    rows.append([REST, *(sum(count for name, count in parts.items() if name not in listed) for parts in spent)])
    lines = [
        "# Where a request's processor time goes",
        "",
        f"Written by `make instructions ARGS=--page` on {date.today():%-d %B %Y}; nothing here is written by hand. "
        "[docs/performance.md](performance.md)",
        "says what Tierway costs compared with nginx. Counted is the real gateway under callgrind with every feature on, on the",
        "thread that serves, in user space. `make check` holds the totals to `benches/instructions.toml`, and",
        "`cargo test --test allocations` the allocations and the bytes that an open stream holds.",
        "",
        "Not counted: the kernel's work, and receipts, which another thread writes to SQLite, up to 256 in a commit. Both are in the",
        "processor time of the performance page, and the system calls of a request too.",
        "",
        "## By part",
        "",
        "Instructions of one operation, and their share. A function counts for its crate, or for the module of Tierway it is in,",
        "with all that the compiler inlined into it.",
        "",
        "| | " + " | ".join(profile.name for profile in profiles) + " |",
        "|---" * (len(profiles) + 1) + "|",
        "| **all** | " + " | ".join(f"**{profile.total:,.0f}**" for profile in profiles) + " |",
    ]
    for name, *counts in rows:
        # A difference of two runs may be a little below nothing.
        cells = (f"{max(count, 0):,.0f} · {max(100 * count / profile.total, 0):.0f} %" for count, profile in zip(counts, profiles))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"A refusal costs {share(profiles, 'refusal, 401')} of a whole request (401) and {share(profiles, 'refusal, 429')} (429).",
        "",
        "## By function of ours",
        "",
        f"Of a {first.name}, with what they call; one that calls another includes it. "
        f"`make instructions ARGS='--profile \"{first.name}\"'` lists all.",
        "",
        "| | instructions |",
        "|---|---|",
    ]
    ours = [(name, count) for name, count in first.whole.items() if re.match(r"<?tierway::", name) and "'" not in name]
    for name, count in sorted(ours, key=lambda item: -item[1])[:FUNCTIONS]:
        lines.append(f"| `{name}` | {count:,.0f} |")
    (docs / "where-time-goes.md").write_text("\n".join(lines) + "\n")
    print(docs / "where-time-goes.md")


def share(profiles, name):
    """How many whole requests one operation costs."""
    found = next(profile for profile in profiles if profile.name == name)
    return f"{found.total / profiles[0].total:.2f}"
