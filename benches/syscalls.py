"""How many system calls a contender makes for each whole request, counted by strace.

Under strace everything is slower, so that fewer events are waited for at once than otherwise: the count is an upper bound.
"""

import signal
import subprocess
import time


def per_request(server, loads):
    """System calls of all threads, divided by the requests answered meanwhile."""
    report = loads.folder / "strace"
    pids = [part for pid in server.pids() for part in ("-p", str(pid))]
    loads.wrk(server.port, 1, 64)
    tracer = subprocess.Popen(["strace", "-f", "-c", "-o", report, *pids], stderr=subprocess.PIPE, text=True)
    try:
        # It names each process that it is attached to.
        for _ in server.pids():
            tracer.stderr.readline()
        time.sleep(0.2)
        requests, _ = loads.wrk(server.port, loads.lengths.traced, 64)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)
    total = next(line for line in reversed(report.read_text().splitlines()) if line.endswith("total"))
    # Share of the time, seconds, microseconds for each, calls; errors only where there were any.
    return int(total.split()[3]) / requests
