"""The loads on a contender, from the load's own core.

It must never ignore a failed request: an answer other than the requested one ends the run.
"""

import json
import re
import subprocess
import time
from contextlib import contextmanager

from processes import KEY, MODEL, pinned

FRAMES = 50
PACE_MS = 20


class Loads:
    """`wrk` and the rig, with a port as their target."""

    def __init__(self, args, folder, lengths):
        self.rig, self.core, self.folder, self.lengths = str(args.rig), args.load_core, folder, lengths

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pinned(self.core))
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command[:3]))} failed:\n{done.stderr}{done.stdout}"[:4000])
        return done.stdout

    def wrk(self, port, seconds, connections, *, key=KEY, filler=0, refused=False, but=0, model=MODEL, embeds=False, fresh=False, tls=False):
        """Returns how many requests were answered, and how many in a second; all must be refused `but` some, or none."""
        text = "x" * filler or "Say something."
        asked = {"input": text} if embeds else {"messages": [{"role": "user", "content": text}]}
        script = self.folder / "request.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{json.dumps({'model': model, **asked})}'\n"
            f"wrk.headers['content-type'] = 'application/json'\nwrk.headers['authorization'] = 'Bearer {key}'\n"
            + "wrk.headers['connection'] = 'close'\n" * fresh
        )
        url = f"http{'s' * tls}://127.0.0.1:{port}/v1/{'embeddings' if embeds else 'chat/completions'}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
        said = self.run(command)
        requests = int(re.search(r"(\d+) requests in", said)[1])
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        served = requests - (int(bad[1]) if bad else 0)
        as_meant = served <= but if refused else served == requests
        if "Socket errors" in said or not requests or not as_meant:
            raise SystemExit(f"port {port} did not answer as it should:\n{said}")
        return requests, float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])

    def open(self, port, per_second, seconds, *more):
        command = [self.rig, "open", f"127.0.0.1:{port}", "--key", KEY, *more]
        said = json.loads(self.run([*command, "--per-second", str(per_second), "--seconds", str(seconds)]))
        if said["failed"]:
            raise SystemExit(f"port {port} failed {said['failed']} of {said['requests']} requests: {said['failure']}")
        return said

    def streams(self, port):
        command = [self.rig, "streams", f"127.0.0.1:{port}", "--key", KEY, "--streams", str(self.lengths.streams)]
        shape = ["--times", str(self.lengths.stream_times), "--frames", str(FRAMES), "--pace-ms", str(PACE_MS)]
        return json.loads(self.run([*command, *shape]))

    @contextmanager
    def holding(self, port, streams):
        """Keeps this many streams open after their first frame."""
        command = [self.rig, "hold", f"127.0.0.1:{port}", "--key", KEY, "--streams", str(streams)]
        holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(self.core)
        )
        try:
            if not holder.stdout.readline():
                raise SystemExit(f"port {port} does not hold {streams} streams")
            time.sleep(0.3)
            yield
            holder.communicate(timeout=60)
        finally:
            holder.kill()
            holder.wait()
