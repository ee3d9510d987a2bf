"""What several gateways cost each of them: SQLite, PostgreSQL, and PostgreSQL with a Redis, as ratios: `make bench-replicas`.

The same gateway in three states, interleaved round after round, each with a budget and all three limits of its key. PostgreSQL and
Redis are started here, in a temporary folder, on the load's core. It must never compare two builds.

Prints the rows of docs/replicas.md; start reading in `measure`.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from compare import FULL, QUICK
from contenders import TIERWAY
from loads import Loads
from processes import MODEL, Server, add_arguments, build, free_port, machine, need, pinned, say, tool

BUDGET = ("[policies.bench]\n", '[policies.bench]\nbudget = { limit = "1000000000", window = "month" }\n')
STATES = ("SQLite", "PostgreSQL", "PostgreSQL + Redis")
#: Requests a second of the paced loads.
RATES = (200, 2000)
#: PostgreSQL refuses to run as root.
NOBODY = 65534


class Postgres:
    """A server in `folder`, reached by its socket there, that counts statements."""

    def __init__(self, folder, core):
        self.folder, data = folder, folder / "data"
        folder.mkdir()
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        if self.user:
            os.chown(folder, NOBODY, NOBODY)
        made = [program("initdb"), "-D", data, "-U", "tierway", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **self.user)
        # As installed, but for the address and what counts: fsync is on, since that is what a commit costs.
        command = [program("postgres"), "-D", data, "-k", folder, "-c", "listen_addresses="]
        command += ["-c", "shared_preload_libraries=pg_stat_statements", "-c", "pg_stat_statements.track_utility=on"]
        log = (folder / "log").open("wb")
        self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, preexec_fn=pinned(core), **self.user)

    def __enter__(self):
        deadline = time.monotonic() + 30
        while subprocess.run(self.psql("postgres", "SELECT 1"), capture_output=True).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        self.ask("postgres", "CREATE EXTENSION pg_stat_statements")
        return self

    def __exit__(self, *_):
        # Immediately: gateways are gone by now, and nothing is kept.
        self.process.send_signal(3)
        self.process.wait(30)

    def psql(self, database, sql):
        return [program("psql"), "-XAtq", "-h", self.folder, "-U", "tierway", "-d", database, "-c", sql]

    def ask(self, database, sql):
        return subprocess.run(self.psql(database, sql), check=True, capture_output=True, text=True).stdout.strip()

    def url(self, database):
        self.ask("postgres", f"CREATE DATABASE {database}")
        return f"postgres://tierway@{str(self.folder).replace('/', '%2F')}/{database}"

    def statements(self, database):
        """How many were executed, those that begin and end transactions among them."""
        of = f"SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = '{database}')"
        return int(self.ask("postgres", of))

    def connections(self, database):
        return int(self.ask("postgres", f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"))


def program(name):
    """In the path, or where Debian has it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = shutil.which(name) or (found and str(found[0]))
    return path or need(name, packages="postgresql")


@contextmanager
def redis(folder, core):
    """The port of a server that keeps nothing on the disk."""
    port, server = free_port(), tool("redis-server") or tool("redis-check-rdb")
    if not server:
        need("redis-server", packages="redis-server")
    # Debian's program is a server under this name, whichever package has it.
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, executable=server, stdout=subprocess.DEVNULL, preexec_fn=pinned(core))
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("Redis does not start") from None
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def scripts_run(port):
    """Scripts that the gateway had the server run."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"INFO commandstats\r\n")
        text = b""
        while b"\r\n\r\n" not in text and not text.endswith(b"\r\n\r\n"):
            more = connection.recv(65536)
            text += more
            if not more or text.rstrip().endswith(b"failed_calls=0") and len(more) < 65536:
                break
    lines = [line for line in text.decode().splitlines() if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines)


def measure(args, folder, loads, mock):
    """For each state what was seen: values of each round, and of the last paced load of each rate."""
    with ExitStack() as running:
        postgres = running.enter_context(Postgres(folder / "pg", args.load_core))
        redis_port = running.enter_context(redis(folder, args.load_core))
        servers = {}
        for number, name in enumerate(STATES):
            port, file = free_port(), folder / f"replicas-{number}.toml"
            text = TIERWAY.format(port=port, mock=mock, model=MODEL, tierway_tls="").replace(*BUDGET, 1)
            if "Redis" in name:
                text += f'\n[store]\nshared = "redis://127.0.0.1:{redis_port}"\n'
            file.write_text(text)
            store = postgres.url(f"s{number}") if number else None
            command = [args.tierway, "serve", "--config", file]
            servers[name] = running.enter_context(
                Server(command, port, args.gateway_core, folder / f"replicas-{number}.log", store=store)
            )
        for server in servers.values():
            loads.wrk(server.port, loads.lengths.warm_up, 64)
        seen = {name: {"cpu_us": []} | {f"p99_us {rate}": [] for rate in RATES} for name in STATES}
        for number in range(loads.lengths.rounds):
            for name, server in servers.items():
                before = server.cpu_seconds()
                requests, _ = loads.wrk(server.port, loads.lengths.closed, 64)
                seen[name]["cpu_us"].append((server.cpu_seconds() - before) * 1e6 / requests)
                for rate in RATES:
                    paced(loads, rate, server, seen[name], (postgres, f"s{STATES.index(name)}"), redis_port)
            say(f"round {number + 1}")
        for number, (name, server) in enumerate(servers.items()):
            seen[name]["mib"] = server.rss_kib() / 1024
            seen[name]["connections"] = postgres.connections(f"s{number}") if number else 0
        return seen


def paced(loads, rate, server, seen, database, redis_port):
    """One load at `rate` requests a second: its p99, and what the servers behind were asked in it."""
    postgres, name = database
    statements, scripts = postgres.statements(name), scripts_run(redis_port)
    said = loads.open(server.port, rate, loads.lengths.fast)
    seen[f"p99_us {rate}"].append(said["p99_us"])
    seen[f"statements {rate}"] = (postgres.statements(name) - statements) * 1000 / said["requests"]
    seen[f"scripts {rate}"] = (scripts_run(redis_port) - scripts) * 1000 / said["requests"]


def table(seen):
    base = statistics.median(seen[STATES[0]]["cpu_us"])
    head = ["CPU µs a request", *(f"p99 at {rate:,}/s, µs" for rate in RATES)]
    head += [f"statements per 1,000 requests at {rate:,}/s" for rate in RATES]
    head += ["scripts per 1,000 requests", "MiB", "connections"]
    out = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, found in seen.items():
        cpu = statistics.median(found["cpu_us"])
        cells = [f"{cpu:.1f} · **{cpu / base:.2f}**"]
        for rate in RATES:
            mine, first = (statistics.median(one[f"p99_us {rate}"]) for one in (found, seen[STATES[0]]))
            cells.append(f"{mine:,.0f} · **{mine / first:.2f}**")
        cells += [f"{found[f'statements {rate}']:.0f}" for rate in RATES]
        cells += [f"{found[f'scripts {RATES[-1]}']:,.0f}", f"{found['mib']:.0f}", str(found["connections"])]
        out.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, fewer rounds: a quick check, not figures")
    add_arguments(parser)
    args = parser.parse_args()
    need("wrk", packages="wrk")
    build(args)
    with tempfile.TemporaryDirectory(prefix="tierway-bench-") as name:
        folder, mock = Path(name), free_port()
        # Where PostgreSQL runs as another user, it must get through.
        folder.chmod(0o711)
        loads = Loads(args, folder, QUICK if args.quick else FULL)
        with Server([args.rig, "mock", f"127.0.0.1:{mock}"], mock, args.load_core, folder / "mock.log"):
            about = machine()
            print(table(measure(args, folder, loads, mock)))
        print(f"\n{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, load average at the start {about['load']}.")


if __name__ == "__main__":
    main()
