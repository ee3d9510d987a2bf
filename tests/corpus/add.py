"""Adds a case from a recorded answer.

    curl -sS -N -D head.txt -o body.txt … https://host/v1/chat/completions
    add.py NAME --about "What is odd about it." --rule frames --headers head.txt --body body.txt

Take out whatever must not be published: the file is kept as it is recorded. The official clients say what they get
of it directly; what the gateway must do follows from that, where it does, and is to be written by hand where not.
"""

import argparse
import base64
import sys

import judge
from case import CASES, NEWLINES, RULES, Case
from verdict import Got, read_stream

# What belongs to the connection and not to the answer, or tells nothing about it.
LEFT_OUT = {"transfer-encoding", "content-length", "connection", "date", "keep-alive", "set-cookie", "server", "alt-svc"}


def read_head(text: str) -> tuple[int, list[str], str]:
    """Status, headers and framing of the last response in what `curl -D` wrote."""
    block = [block for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()][-1]
    first, *lines = block.strip().split("\n")
    headers = [line.strip() for line in lines]
    names = {line.partition(":")[0].lower() for line in headers}
    framing = "chunked" if "transfer-encoding" in names else "length" if "content-length" in names else "close"
    # Over HTTP/2 there is neither, and chunks are what comes nearest.
    framing = "chunked" if first.startswith("HTTP/2") else framing
    return int(first.split()[1]), [line for line in headers if line.partition(":")[0].lower() not in LEFT_OUT], framing


def write_body(reply: dict, raw: bytes) -> None:
    """As readable as the bytes permit."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    for name, newline in NEWLINES.items():
        if text is not None and text.replace(newline, "\n").replace("\n", newline) == text and "\r" not in text.replace(newline, ""):
            if name != "lf":
                reply["newline"] = name
            reply["body"] = text.replace(newline, "\n")
            return
    reply["body_base64"] = base64.b64encode(raw).decode()


def expected(case: Case, mode: str, found: dict[str, Got]) -> str:
    """What the rule asks of the gateway; `missing` where somebody has to say it."""
    lenient = read_stream(case.plain_bytes(), True)
    if "answer" in [got.verdict(case.answer) for got in found.values()]:
        return "answer"
    if all(got.ends in ("short", "hang") for got in found.values()) and not case.answer:
        # What has begun can only be broken off; everything else has a status of its own.
        return "error: 200" if mode == "stream" and lenient.choices else "error: 504" if case.held else "error: 502"
    return "answer" if case.answer and lenient.ends == "answer" else "missing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--about", required=True, help="what is odd about it, in a sentence")
    parser.add_argument("--rule", required=True, choices=RULES)
    parser.add_argument("--source", default="", help="where it is reported")
    parser.add_argument("--headers", required=True, type=argparse.FileType(), help="what `curl -D` wrote")
    parser.add_argument("--body", required=True, type=argparse.FileType("rb"), help="the body to the byte, as it was sent")
    parser.add_argument("--end", default="clean", choices=["clean", "close", "reset", "hold"])
    parser.add_argument("--usage", action="store_true", help="the client asks for usage")
    asked = parser.parse_args()
    if (CASES / f"{asked.name}.toml").exists():
        parser.error(f"there is a case {asked.name}")
    status, headers, framing = read_head(asked.headers.read())
    reply = {} if status == 200 else {"status": status}
    reply["headers"] = headers
    if framing != "chunked":
        reply["framing"] = framing
    if asked.end != "clean":
        reply["end"] = asked.end
    write_body(reply, asked.body.read())
    case = Case(asked.name, asked.about, asked.rule, asked.source, {"usage": True} if asked.usage else {}, reply=reply)
    provider = judge.serve([case])
    found = judge.direct([case], provider.url)
    provider.close()
    case.answer = judge.find_answer(case, found)
    for mode in case.modes:
        case.verdicts(mode).update({reader: got.verdict(case.answer) for reader, got in found[case.name, mode].items()})
        case.verdicts(mode)["tierway"] = expected(case, mode, found[case.name, mode])
    case.save()
    print(case.dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
