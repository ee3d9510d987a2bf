"""Ten times the usual load on providers of a fixed capacity, under keys of two policies: `make burst`.

Each case has a gateway and providers of its own. Its clients try again as the official ones do. What a case is to show is
in its `broken`; a case that only measures has none.

It must never leave out a request: what was refused or came late is in the figures, and makes the command fail where it was
promised otherwise.

Writes docs/burst.md, with --small nothing; start reading in `measure`.
"""

import argparse
import concurrent.futures
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import burst_page
import outage_stage
from outage_stage import CORES, build_of, in_ms, provider_section, quantile
from processes import SECRETS, Server, free_port, machine, say

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Size:
    """How large and how long a run is. Each provider answers `slots` requests at once, each in `mean_ms` on average."""

    slots: int
    mean_ms: int
    #: Seconds before the burst, of it, and after it.
    phases: tuple
    #: Requests a second of each key: usual, and of the key that brings the burst.
    pro: float
    standard: float
    burst: float
    #: Clients of the hostile key.
    workers: int
    #: By `Pro/` names, and the dedicated places.
    reserved: float
    dedicated: int
    #: At least so many of them make a share that means something.
    reservations: int = 1

    @property
    def capacity(self):
        """Answers a second."""
        return self.slots * 1000 / self.mean_ms


FULL = Size(slots=40, mean_ms=2000, phases=(30, 60, 12), pro=4, standard=6, burst=96, workers=60, reserved=5, dedicated=20)
#: Thousands of `Pro/` requests in 85 s: shorter answers, and few shared places, so that the others need what is lent.
FULL_LENT = replace(FULL, slots=16, mean_ms=400, phases=(20, 60, 5), reserved=55, dedicated=40, reservations=3000)
SMALL = Size(slots=12, mean_ms=1000, phases=(1, 3, 0), pro=2, standard=4, burst=58, workers=10, reserved=2, dedicated=6)
#: Left out of the times at the start of each phase, until it is steady.
SETTLED_S = 3
#: What a p99 may rise by, under a limit that is found too, and how soon after the burst it is over.
RISE, ADAPTIVE_RISE, RECOVERED_S = 1.10, 1.50, 2
#: The share of the capacity left to it that the standard policy is to be served, and of reservations that are to hold.
KEPT, HONOURED = 0.90, 0.999

HEAD = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"
{server}
[policies.standard]
models = ["*"]
priority = 1

[policies.pro]
models = ["*"]
priority = 8
reserved = true
"""


# --- the cases --------------------------------------------------------------------------------


class Case:
    """A burst of one standard key, before a deployment with a limit of its own."""

    name, title, adaptive = "burst", "`max_concurrent` of the deployment", False
    server = ""
    limited = True

    def __init__(self, size):
        self.size = size

    def sources(self):
        size = self.size
        return {"pro": {"rates": [size.pro] * 3}, "standard": {"rates": [size.standard, size.burst, size.standard]}}

    def deployments(self):
        limit = f", max_concurrent = {self.size.slots}" if self.limited else ""
        return [f'{{ provider = "shared"{limit} }}']

    def providers(self):
        return {"shared": self.size.slots}

    def summary(self, seen, before, after):
        return {**common(self.size, seen, before, after), "recovered_s": recovery(self.size, seen),
                "kept": kept(self.size, before, after)}

    def broken(self, figures, timed):
        """What was promised and is not so; `timed`: whether times count, which a busy machine decides."""
        yield from never(figures)
        if not figures["refusals"]:
            yield "nobody was refused: this was no burst"
        if timed:
            yield from rose(figures["pro"])
            recovered = figures["recovered_s"]
            for key, since in (("pro", 0), ("standard", max(0, recovered["sendings"]))):
                if recovered[key] > since + RECOVERED_S:
                    yield f"{key} was as usual {recovered[key]:.1f} s after the burst, whose last sending was at {since:.1f} s"
            if figures["kept"] < KEPT:
                yield f"standard was served {figures['kept']:.1%} of the capacity left to it"


class GatewayLimit(Case):
    """The same before a deployment without one: the gateway's own limit holds."""

    name, title = "gateway", "`max_in_flight` of the gateway"
    limited = False

    @property
    def server(self):
        return f"max_in_flight = {self.size.slots}\n"


class AdaptiveLimit(Case):
    """The same where nobody has said what the provider carries."""

    name, title, adaptive = "adaptive", '`max_in_flight = "adaptive"`', True
    limited = False
    server = 'max_in_flight = "adaptive"\nadaptive_at_least = 16\nadaptive_at_most = 200\n'

    def broken(self, figures, timed):
        yield from never(figures)
        if timed:
            yield from rose(figures["pro"], ADAPTIVE_RISE)


class HostileKey(Case):
    """A key that asks as fast as it is answered, beside others of its policy."""

    name, title = "hostile", "one key that never pauses"

    def sources(self):
        size = self.size
        during = [size.phases[0], sum(size.phases[:2])]
        return {"pro": {"rates": [size.pro] * 3}, "standard": {"rates": [size.standard] * 3},
                "hostile": {"workers": size.workers, "during": during, "policy": "standard"}}

    def summary(self, seen, before, after):
        answered = {key: after["shared"]["answered"].get(key, 0) - before["shared"]["answered"].get(key, 0)
                    for key in ("pro", "standard", "hostile")}
        return {**common(self.size, seen, before, after), "answered": answered}

    def broken(self, figures, timed):
        yield from never(figures)
        if figures["standard"]["refused"]:
            yield f"{figures['standard']['refused']} requests of another key of the policy were refused"
        if timed:
            yield from rose(figures["pro"])
            yield from rose(figures["standard"])


class FailingKey(Case):
    """A key whose every request makes the provider fail, beside others."""

    name, title = "failing", "one key whose requests all fail"

    def sources(self):
        size = self.size
        return {"pro": {"rates": [size.pro] * 3}, "standard": {"rates": [size.standard] * 3},
                "failing": {"rates": [0, size.standard, 0], "policy": "standard", "user": "fail"}}

    def summary(self, seen, before, after):
        return {**common(self.size, seen, before, after), "opened": after["opened"] - before["opened"]}

    def broken(self, figures, timed):
        yield from never(figures)
        if figures["opened"]:
            yield f"a breaker opened {figures['opened']} times"
        for key in ("pro", "standard"):
            if figures[key]["refused"] or figures[key]["failed"]:
                yield f"{key}: {figures[key]['refused']} refused, {figures[key]['failed']} failed"
            if timed:
                yield from rose(figures[key])


class Lent(Case):
    """`Pro/` requests alone, then beside a burst that is lent their idle places."""

    name, title = "lent", "dedicated places with `lend`"

    def __init__(self, size):
        super().__init__(FULL_LENT if size is FULL else size)

    def sources(self):
        size = self.size
        return {"pro": {"rates": [size.reserved, size.reserved, size.reserved], "model": "Pro/small"},
                "standard": {"rates": [0, size.burst, 0]}}

    def deployments(self):
        dedicated = f'{{ provider = "dedicated", capacity = "dedicated", max_concurrent = {self.size.dedicated}, lend = true }}'
        return [*super().deployments(), dedicated]

    def providers(self):
        return {"shared": self.size.slots, "dedicated": self.size.dedicated}

    def summary(self, seen, before, after):
        lent = after["dedicated"]["answered"].get("standard", 0) - before["dedicated"]["answered"].get("standard", 0)
        return {**common(self.size, seen, before, after), "lent": lent,
                **{name: after[name] - before[name] for name in ("honoured", "missed")}}

    def broken(self, figures, timed):
        yield from never(figures)
        asked = figures["honoured"] + figures["missed"]
        if not asked or figures["honoured"] < HONOURED * asked:
            yield f"{figures['missed']} of {asked} reservations were not honoured"
        if asked < self.size.reservations:
            yield f"only {asked} reservations were asked for: too few to say so"
        if not figures["lent"]:
            yield "nothing was lent"
        if timed:
            yield from rose(figures["pro"])


CASES = [Case, GatewayLimit, AdaptiveLimit, HostileKey, FailingKey, Lent]


# --- one run ----------------------------------------------------------------------------------


def measure(args, case, folder):
    """The figures of one case."""
    size, port = case.size, free_port()
    command = [sys.executable, HERE / "burst_provider.py", *(f"{name}={slots}" for name, slots in case.providers().items()),
               "--mean-ms", size.mean_ms]
    with Process(command) as providers:
        ports = json.loads(providers.line())
        keys = {name: f"sk-burst-{name}-0123456789abcdef0123456789abcdef" for name in case.sources()}
        path = folder / f"{case.name}.toml"
        path.write_text(config(case, port, ports, keys))
        # Under load the store is part of what is measured: it is a file, as by default.
        with Server([args.tierway, "serve", "--config", path], port, CORES, path.with_suffix(".log")):
            sources = [{"name": name, "key": keys[name], "model": source.get("model", "small"), **source}
                       for name, source in case.sources().items()]
            load = {"port": port, "phases": size.phases, "seed": 1, "sources": sources}
            with Process([sys.executable, HERE / "burst_load.py", json.dumps(load)]) as clients:
                clients.line()
                begins = time.time() + 0.5
                clients.write(f"{begins}\n")
                wait_until(begins + size.phases[0])
                before = state(providers, port)
                wait_until(begins + sum(size.phases[:2]))
                after = state(providers, port)
                seen = [json.loads(line) for line in clients.rest()]
    say(f"{case.name}: {len(seen)} requests")
    return case.summary(seen, before, after)


def config(case, port, ports, keys):
    lines = [HEAD.format(port=port, server=case.server)]
    lines += [provider_section(name, ports[name], "here") for name in ports]
    lines.append(f"\n[models.small]\ndeployments = [{', '.join(case.deployments())}]\n")
    for name, secret in keys.items():
        variable = f"BURST_KEY_{name.upper()}"
        SECRETS[variable] = secret
        policy = case.sources()[name].get("policy", name)
        lines.append(f'\n[[keys]]\nname = "{name}"\npolicy = "{policy}"\nsecret = "env:{variable}"\n')
    return "".join(lines)


class Process:
    """A process that is spoken to by lines."""

    def __init__(self, command):
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[1]} ended")
        return line

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def rest(self):
        lines = list(self.process.stdout)
        if self.process.wait():
            raise SystemExit(f"{self.process.args[1]} ended with an error")
        return lines


def wait_until(at):
    time.sleep(max(0, at - time.time()))


def state(providers, port):
    """What providers and gateway have counted so far."""
    providers.write("\n")
    seen = json.loads(providers.line())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()

    def total(pattern):
        return sum(map(int, re.findall(rf"^{pattern} (\d+)$", metrics, re.MULTILINE)))

    return {**seen, "at": time.time(), "limit": total("tierway_max_in_flight"),
            "opened": total(r'tierway_breaker_transitions_total\{.*to="(?:open|resting)".*\}'),
            "honoured": total("tierway_reserved_honoured_total"), "missed": total("tierway_reserved_missed_total")}


# --- the figures ------------------------------------------------------------------------------


def phase_of(size, request):
    """0 before the burst, 1 in it, 2 after it; `None` while a phase begins."""
    begun = 0
    for phase, seconds in enumerate(size.phases):
        if begun <= request["due_s"] < begun + seconds:
            return phase if request["due_s"] >= begun + SETTLED_S or phase == 2 else None
        begun += seconds
    return None


def common(size, seen, before, after):
    """What every case has: of each key how many were sent, served and refused, and how long they took."""
    figures = {"requests": len(seen), "limit": after["limit"], "most": {name: after[name]["most"] for name in after if isinstance(after[name], dict)},
               "wrong": [request["wrong"] for request in seen if request["wrong"] and request["source"] != "failing"][:5],
               "refusals": sum(request["statuses"].count(429) for request in seen),
               "errors": sum(status == 0 or status >= 500 for request in seen if request["source"] != "failing"
                             for status in request["statuses"])}
    for source in dict.fromkeys(request["source"] for request in seen):
        own = [request for request in seen if request["source"] == source]
        burst = [request for request in own if size.phases[0] <= request["due_s"] < sum(size.phases[:2])]
        took = [[request["took_ms"] for request in own if request["statuses"][-1] == 200 and phase_of(size, request) == phase]
                for phase in range(3)]
        last = [request["statuses"][-1] for request in burst]
        figures[source] = {
            "sent": len(burst), "served": last.count(200), "refused": last.count(429),
            "failed": len(last) - last.count(200) - last.count(429), "sendings": sum(len(request["statuses"]) for request in burst),
            "p50": [quantile(times, 0.5) for times in took], "p99": [quantile(times, 0.99) for times in took],
        }
    return figures


def recovery(size, seen):
    """Seconds from the end of the burst: to the last sending of its requests, and to the last request due after it, of each
    key, that was refused, or that took longer than any of its key had before the burst."""
    ended = sum(size.phases[:2])
    found = {"sendings": max(request["sent_s"] - ended for request in seen if request["due_s"] < ended)}
    for source in ("pro", "standard"):
        own = [request for request in seen if request["source"] == source]
        usual = max((request["took_ms"] for request in own if phase_of(size, request) == 0), default=0)
        late = [request["due_s"] - ended for request in own if request["due_s"] >= ended
                and (request["statuses"] != [200] or request["took_ms"] > usual * RISE)]
        found[source] = max(late, default=0)
    return found


def kept(size, before, after):
    """Of the capacity that `pro` left, the share that the standard policy was served in the burst."""
    answered = {key: after["shared"]["answered"].get(key, 0) - before["shared"]["answered"].get(key, 0) for key in ("pro", "standard")}
    return answered["standard"] / ((after["at"] - before["at"]) * size.capacity - answered["pro"])


def unreadable(figures):
    """What no client may read, whatever it meets."""
    if figures["errors"]:
        yield f"{figures['errors']} answers of 5xx or none"
    if figures["wrong"]:
        yield f"answers that a client should not read: {figures['wrong']}"


def never(figures):
    """What no burst may cause."""
    yield from unreadable(figures)
    if figures["pro"]["refused"] or figures["pro"]["failed"]:
        yield f"pro: {figures['pro']['refused']} refused, {figures['pro']['failed']} failed of {figures['pro']['sent']}"


def rose(of_key, rise=RISE):
    usual, burst, _ = of_key["p99"]
    if usual is None or burst is None or burst > usual * rise:
        yield f"p99 {in_ms(burst)}, usually {in_ms(usual)}"


def beside_earlier(path, figures):
    """The figures of a whole run that `path` has, with these cases in place of its own, which are kept as earlier ones."""
    if not path.exists():
        return figures
    whole = json.loads(path.read_text())
    for name, seen in figures["cases"].items():
        whole.setdefault("earlier", []).append({"case": name, **whole["cases"][name], **whole["about"]})
        whole["cases"][name] = {**seen, "about": figures["about"]}
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a few seconds each, without bounds on times; writes no page")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="these only; writes no page, but --draw does, with what they replace in --figures")
    outage_stage.add_arguments(parser)
    args = parser.parse_args()
    size = SMALL if args.small else FULL
    # What is only measured shows nothing in a few seconds.
    wanted = args.cases or [case.name for case in CASES if not (args.small and case.adaptive)]
    cases = [case(size) for case in CASES if case.name in wanted]
    if args.draw:
        figures = json.loads(args.figures.read_text())
    else:
        outage_stage.build(args)
        figures = {"about": {**machine(), "build": build_of(args.tierway)}}
        with tempfile.TemporaryDirectory(prefix="tierway-burst-") as folder:
            # Side by side only where times do not count.
            with concurrent.futures.ThreadPoolExecutor(3 if args.small else 1) as pool:
                seen = pool.map(lambda case: measure(args, case, Path(folder)), cases)
                figures["cases"] = {case.name: one for case, one in zip(cases, seen)}
        if args.figures:
            args.figures.write_text(json.dumps(beside_earlier(args.figures, figures) if args.cases else figures))
    print(burst_page.tables(cases, figures["cases"]))
    if not (args.small or args.cases):
        burst_page.write(args.docs, size, SETTLED_S, ADAPTIVE_RISE, cases, figures)
    if found := [f"{case.name}: {what}" for case in cases for what in case.broken(figures["cases"][case.name], not args.small)]:
        raise SystemExit("\n".join(["not as promised:", *found]))


if __name__ == "__main__":
    main()
