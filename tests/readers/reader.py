"""A provider in Python, as far as it reads: bodies come on standard input, each behind its length in four bytes, and a
line for each says what was read, by a reader that compares names exactly and by one that ignores case."""

import json
import struct
import sys


class Refused(Exception):
    pass


def typed(value, kind):
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise Refused
    return value


def whole(value):
    """Beyond 2^53 readers differ by rounding, and no model is that long."""
    value = typed(value, (int, float))
    return None if value is None else min(value, 2**53)


def reading(read, fold):
    def members(value):
        return {fold(name): member for name, member in typed(value, dict).items()}

    read = members(read)
    images = False
    for message in typed(read.get("messages"), list) or []:
        content = members(message).get("content")
        if isinstance(content, list):
            images |= any(members(part).get("type") in ("image_url", "input_image") for part in content)
    options = members(read.get("stream_options") or {})
    return [
        typed(read.get("model"), str),
        bool(typed(read.get("stream"), bool)),
        bool(typed(options.get("include_usage"), bool)),
        *(whole(read.get(name)) for name in ("n", "max_tokens", "max_completion_tokens")),
        images,
    ]


def readings(text):
    for fold in (str, str.lower, str.casefold):
        try:
            yield reading(json.loads(text), fold)
        except (Refused, ValueError, AttributeError, RecursionError):
            yield None


def main():
    while head := sys.stdin.buffer.read(4):
        text = sys.stdin.buffer.read(*struct.unpack(">I", head))
        sys.stdout.write(json.dumps(list(readings(text))) + "\n")


main()
