"""How many instructions the gateway spends on a request, a frame and a refusal: `make instructions`.

The gateway runs under callgrind in a process of its own; this one is both its client and its provider,
and works in lock-step: it sends only when every thread of the gateway waits. Random bytes and time are
fixed (benches/instructions/fixed.c), so that a count repeats exactly (`ARGS=--twice` checks it). The cost
of one operation is the difference between many and twice as many, which excludes the start; the kernel's
work is not counted.

It must never compare what is not comparable: on another platform it prints why and counts nothing.

Start reading in `main`.
"""

import argparse
import json
import os
import platform
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import contenders
import processes
import where

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "benches" / "instructions.toml"
# Longer than anything takes under valgrind on a busy machine.
PATIENCE = 60


# --- the gateway ------------------------------------------------------------------------------


class Gateway:
    """The counted process, with a client's connection to it and the provider behind it."""

    def __init__(self, binary, folder):
        self.folder = folder
        self.provider = socket.create_server(("127.0.0.1", 0))
        config = contenders.TIERWAY.format(
            port=0, mock=self.provider.getsockname()[1], model=processes.MODEL, tierway_tls="")
        (folder / "gateway.toml").write_text(config)
        callgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=counts",
                     "--dump-before=instructions::lap"]
        self.log = folder / "valgrind.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                # Addresses influence hashes, so their randomisation is disabled.
                ["setarch", "-R", *callgrind, str(binary), "gateway.toml"],
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                # The environment is on the stack, so it is the same on every machine.
                env={"PATH": os.environ["PATH"], **processes.SECRETS},
            )
        port = self.process.stdout.readline()
        if not port:
            raise SystemExit(f"the gateway does not start:\n{self.log.read_text(errors='replace')[-4000:]}")
        self.wait_until_quiet()
        self.client = prepared(socket.create_connection(("127.0.0.1", int(port))))
        # Every connection the gateway has opened, and the one with the last request.
        self.connections, self.upstream, self.laps = [], None, 0
        # What a new connection does after a millisecond happens now and not while instructions are counted:
        # the fixed clock advances at each call, and each wake-up calls it.
        self.wait_until_quiet(for_seconds=0.1)

    def wait_until_quiet(self, for_seconds=0.0002):
        """Waits until every thread waits, and has not run since the last check."""
        deadline = time.monotonic() + PATIENCE
        before = None
        while (now := self.look()) != before or any(state != "S" for state, *_ in now):
            before = now
            if time.monotonic() > deadline:
                raise SystemExit(f"the gateway does not become idle: {now}")
            time.sleep(for_seconds)

    def look(self):
        """For each thread: its state and its number of context switches."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [
            re.findall(r"^(?:State|voluntary_ctxt_switches|nonvoluntary_ctxt_switches):\s+(\w+)",
                       (tasks / task / "status").read_text(), re.M)
            for task in sorted(os.listdir(tasks), key=int)
        ]

    def asked(self):
        """Waits until the provider has been sent a whole request, and the gateway awaits the answer."""
        read = b""
        while not is_whole(read):
            ready, _, _ = select.select([self.provider, *self.connections], [], [], PATIENCE)
            if not ready:
                raise SystemExit(f"the provider was not asked:\n{self.log.read_text(errors='replace')[-4000:]}")
            for each in ready:
                if each is self.provider:
                    self.connections.append(prepared(self.provider.accept()[0]))
                else:
                    self.upstream = each
                    read += each.recv(1 << 16)
        self.wait_until_quiet()

    def answer(self, data):
        self.upstream.sendall(data)

    def read_until(self, end, status=b"200"):
        """What the client is sent, up to `end`, a predicate."""
        read = b""
        while not end(read):
            piece = self.client.recv(1 << 16)
            if not piece:
                raise SystemExit(f"the gateway closed the connection after {read!r}")
            read += piece
        if not read.startswith(b"HTTP/1.1 ") or read.startswith(b"HTTP/1.1 " + status):
            self.wait_until_quiet()
            return read
        raise SystemExit(f"the gateway answered {read.decode(errors='replace')}")

    def lap(self):
        """The file with the counts of the serving thread since the last lap."""
        self.process.stdin.write(b".")
        self.process.stdin.flush()
        self.wait_until_quiet(for_seconds=0.1)
        self.laps += 1
        return self.folder / f"counts.{self.laps}-01"

    def stop(self):
        for each in [self.client, *self.connections, self.provider, self.process.stdout, self.process.stdin]:
            each.close()
        self.process.kill()
        self.process.wait()


def prepared(connection):
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


# --- messages ---------------------------------------------------------------------------------


def is_whole(message):
    """Whether a message with a length, or in chunks, is complete."""
    head, found, body = message.partition(b"\r\n\r\n")
    if not found:
        return False
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


def request(key, more=""):
    body = f'{{"model":"{processes.MODEL}",{more}"messages":[{{"role":"user","content":"Say something short."}}]}}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def whole_answer():
    body = (
        '{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"bench-model","choices":'
        '[{"index":0,"message":{"role":"assistant","content":"' + "x" * 320 + '"},"logprobs":null,'
        '"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}'
    )
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def frame(choices, more=""):
    return event(
        '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-model",'
        f'"choices":[{choices}]{more}}}'
    )


def event(data):
    data = f"data: {data}\n\n"
    return f"{len(data):x}\r\n{data}\r\n".encode()


def token(finish="null"):
    return frame(f'{{"index":0,"delta":{{"content":" token"}},"logprobs":null,"finish_reason":{finish}}}')


# --- what is counted --------------------------------------------------------------------------


def wholes(gateway, count):
    """Whole answers."""
    asked, answered = request(processes.KEY), whole_answer()
    for _ in range(count):
        gateway.client.sendall(asked)
        gateway.asked()
        gateway.answer(answered)
        gateway.read_until(is_whole)


def streams(frames):
    def work(gateway, count):
        """Streams; the client has each frame before the next one is sent."""
        asked = request(processes.KEY, '"stream":true,')
        usage = ',"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}'
        for _ in range(count):
            gateway.client.sendall(asked)
            gateway.asked()
            for number in range(frames):
                gateway.answer((b"" if number else STREAM_HEAD) + token())
                gateway.read_until(lambda read: b" token" in read)
            gateway.answer(token('"stop"') + frame("", usage) + event("[DONE]") + b"0\r\n\r\n")
            gateway.read_until(lambda read: read.endswith(b"\r\n0\r\n\r\n"))

    return work


def refusals(key, status):
    def work(gateway, count):
        asked = request(key)
        for _ in range(count):
            gateway.client.sendall(asked)
            gateway.read_until(is_whole, status)

    return work


def use_up(gateway):
    """Sends the one request a minute that the limited key has."""
    gateway.client.sendall(request(processes.LIMITED_KEY))
    gateway.asked()
    gateway.answer(whole_answer())
    gateway.read_until(is_whole)


@dataclass(frozen=True)
class Measure:
    """The cost of one operation: `more` does `things` operations more than `less`."""

    name: str
    things: int
    less: tuple
    more: tuple
    first: Callable = lambda gateway: None

    def run(self, binary, folder):
        """Runs both with a new gateway after a warm-up; returns the files with their counts."""
        folder.mkdir()
        gateway = Gateway(binary, folder)
        try:
            self.first(gateway)
            self.do(gateway, self.less)
            gateway.lap()
            self.do(gateway, self.less)
            less = gateway.lap()
            self.do(gateway, self.more)
            return less, gateway.lap()
        finally:
            gateway.stop()

    @staticmethod
    def do(gateway, what):
        work, times = what
        work(gateway, times)


MANY = 100
UNKNOWN, LIMITED = refusals("sk-wrong", b"401"), refusals(processes.LIMITED_KEY, b"429")
MEASURES = [
    Measure("whole request", MANY, (wholes, MANY), (wholes, 2 * MANY)),
    Measure("stream of 10 frames", MANY // 2, (streams(10), MANY // 2), (streams(10), MANY)),
    Measure("streamed frame", MANY // 2 * 10, (streams(10), MANY // 2), (streams(20), MANY // 2)),
    Measure("refusal, 401", MANY, (UNKNOWN, MANY), (UNKNOWN, 2 * MANY)),
    Measure("refusal, 429", MANY, (LIMITED, MANY), (LIMITED, 2 * MANY), use_up),
]


def count(binary, folder, measures):
    """The cost of one operation of each measure; uses all cores, which does not affect the counts."""

    folder.mkdir()

    def one(measure):
        less, more = map(total, measure.run(binary, folder / measure.name))
        return round((more - less) / measure.things)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((measure.name for measure in measures), pool.map(one, measures)))


def total(counts):
    return int(re.search(r"^(?:totals|summary): (\d+)", counts.read_text(), re.M)[1])


# --- where they are spent ---------------------------------------------------------------------


def profile(binary, folder, measure):
    """Prints the cost of one operation by function, and keeps callgrind's file."""
    less, more = measure.run(binary, folder / "profile")
    for title, inclusive in [("with what they call", "yes"), ("by themselves", "no")]:
        each = spent_by_function(measure, less, more, inclusive)
        print(f"\n{measure.name}: instructions of functions {title}")
        for name, spent in sorted(each.items(), key=lambda item: -item[1])[:40]:
            print(f"{spent:12,.1f}  {name}")
    kept = target_dir() / "callgrind.out"
    shutil.copy(more, kept)
    print(f"\n{kept}: the whole run, for callgrind_annotate and KCachegrind")


def page(binary, folder):
    """Writes docs/where-time-goes.md: every measure by part, and the first by function of ours."""
    folder.mkdir()

    def one(measure):
        less, more = measure.run(binary, folder / measure.name)
        own, whole = (spent_by_function(measure, less, more, inclusive) for inclusive in ("no", "yes"))
        return where.Profile(measure.name, (total(more) - total(less)) / measure.things, own, whole)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        where.write(ROOT / "docs", list(pool.map(one, MEASURES)))


def spent_by_function(measure, less, more, inclusive):
    """Function to its instructions for one operation."""
    before, after = annotated(less, inclusive), annotated(more, inclusive)
    return {name: (spent - before.get(name, 0)) / measure.things for name, spent in after.items()}


def annotated(counts, inclusive):
    """Function to instructions."""
    said = subprocess.run(
        ["callgrind_annotate", f"--inclusive={inclusive}", "--threshold=100", "--auto=no", str(counts)],
        check=True, capture_output=True, text=True,
    ).stdout
    spent = {}
    for line in said.splitlines():
        if found := re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+(?:[^:]*:)?(.*?)(?: \[[^\]]*\])?$", line):
            name, here = found[2], int(found[1].replace(",", ""))
            # A function has a line for each file whose code was inlined into it: its own cost is their sum, the
            # cost of its callees is in the largest.
            spent[name] = max(spent.get(name, 0), here) if inclusive == "yes" else spent.get(name, 0) + here
    # Functions active when the lap began include all of it, and recursion counts twice.
    return {name: here for name, here in spent.items() if here < total(counts)}


# --- the whole run ----------------------------------------------------------------------------


def target_dir():
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "counted"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build():
    """The release build, with symbols, fixed random bytes and fixed time."""
    source = ROOT / "benches" / "instructions" / "fixed.c"
    # The object's name contains its hash: cargo links again for a new argument, not for a changed file.
    fixed = target_dir() / f"fixed-{zlib.crc32(source.read_bytes()):08x}.o"
    subprocess.run(["cc", "-O2", "-c", "-o", fixed, source], check=True)
    said = subprocess.run(
        ["cargo", "rustc", "--profile", "counted", "--locked", "--bench", "instructions",
         "--message-format=json-render-diagnostics", "--", "-C", f"link-arg={fixed}"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    made = [line for line in map(json.loads, said.splitlines()) if line.get("target", {}).get("name") == "instructions"]
    return made[-1]["executable"]


def obstacle():
    """Why nothing can be counted here, or `None`."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the baseline is of Linux on x86_64, and this is {sys.platform} on {platform.machine()}"
    missing = [tool for tool in ["valgrind", "setarch", "cc"] if not shutil.which(tool)]
    return f"{', '.join(missing)} not found (Debian: apt install valgrind util-linux gcc)" if missing else None


def rustc():
    return subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def compare_with(baseline, counts):
    """Prints baseline and counts side by side; whether nothing has grown by more than the tolerance."""
    tolerance = baseline["tolerance_percent"]
    if rustc() != baseline["rustc"]:
        print(f"another compiler than the baseline's: differences are shown, and fail nothing\n  {rustc()} here,\n"
              f"  {baseline['rustc']} there")
    print(f"{'instructions':24}{'baseline':>12}{'now':>12}{'difference':>14}")
    grown, shrunk = [], []
    for name, now in counts.items():
        before = baseline["counts"].get(name)
        percent = 100 * (now - before) / before if before else None
        print(f"{name:24}{before or '-':>12}{now:>12}" + (f"{now - before:>+7} {percent:+.1f}%".rjust(14) if before else ""))
        if percent is None or percent > tolerance:
            grown.append(name)
        elif percent < -tolerance:
            shrunk.append(name)
    if shrunk:
        print(f"better by more than {tolerance} %: {', '.join(shrunk)}; lower the baseline: make instructions UPDATE=1")
    if grown:
        print(f"grown by more than {tolerance} %, or without a baseline: {', '.join(grown)}; where they go: "
              f"make instructions ARGS='--profile \"{grown[0]}\"'; where that is meant: make instructions UPDATE=1")
    return not grown or rustc() != baseline["rustc"]


def write(counts):
    """Makes them the baseline."""
    tolerance = tomllib.loads(BASELINE.read_text())["tolerance_percent"]
    lines = [
        "# Instructions for one of each, written by `make instructions UPDATE=1`; see benches/instructions.py.",
        "# Counted on the thread that serves, in user space: the same build repeats them exactly. The",
        "# tolerance is for what another processor or libc chooses.",
        f"tolerance_percent = {tolerance}",
        f'rustc = "{rustc()}"',
        "",
        "[counts]",
        *(f'"{name}" = {each}' for name, each in counts.items()),
    ]
    BASELINE.write_text("\n".join(lines) + "\n")


def main():
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="make today's counts the baseline")
    parser.add_argument("--profile", nargs="?", const=names[0], choices=names, metavar="MEASURE",
                        help=f"print where one of them goes instead: {', '.join(names)}")
    parser.add_argument("--page", action="store_true", help="write docs/where-time-goes.md instead")
    parser.add_argument("--twice", action="store_true", help="count everything twice, and fail where that differs")
    parser.add_argument("--binary", help="built already")
    args = parser.parse_args()
    if why := obstacle():
        print(f"instructions are not counted: {why}")
        return
    binary = args.binary or build()
    with tempfile.TemporaryDirectory(prefix="tierway-counted-") as folder:
        if args.profile:
            profile(binary, Path(folder), MEASURES[names.index(args.profile)])
            return
        if args.page:
            page(binary, Path(folder) / "page")
            return
        counts = count(binary, Path(folder) / "once", MEASURES)
        if args.twice:
            again = count(binary, Path(folder) / "again", MEASURES)
            if again != counts:
                raise SystemExit(f"counted twice, and not alike:\n{counts}\n{again}")
            print("counted twice: every count is the same")
    if args.update:
        write(counts)
        print(BASELINE.read_text(), end="")
    elif not compare_with(tomllib.loads(BASELINE.read_text()), counts):
        sys.exit(1)


if __name__ == "__main__":
    main()
