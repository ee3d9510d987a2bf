"""Runs the commands of docs/quickstart.md unchanged, and prints how long each step took.

The commands run in one shell in the order of the page, in an empty directory, without the variables
of this machine; ports that may be in use are replaced by free ones. It must never correct the page:
a command that fails, or an answer other than the documented one, fails the run.

Start reading in `main`.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "quickstart.md"
BINARY = Path(os.environ.get("TIERWAY_BIN", ROOT / "target/debug/tierway"))
#: Seconds after which a step counts as hanging.
PATIENCE = 60
END = "--- step is done ---"

#: What each block must print.
PROMISED = [
    ("2. First answer", [r'"finish_reason":\s*"stop"']),
    ("2. First answer: what became of it", [r"requests|REQUESTS", r"req_[0-9a-f]+"]),
    ("3. A real provider", [r"tierway\.toml", r"gpt-4o-mini"]),
    ("4. Lose a region", [r"(HTTP/1.1 200 OK[^H]*us-east[^H]*){4}"]),
    ("4. Lose a region: it is lost", [r"(HTTP/1.1 200 OK[^H]*us-west[^H]*){8}"]),
    ("4. Lose a region: why", [r"us-east", r"us-west", r'"attempts":2', r'east/small",state="(open|half_open)"} 1']),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def blocks():
    """The commands of the page, with free ports."""
    text = PAGE.read_text()
    for port in ["8080", "9001", "9002"]:
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def surroundings(folder):
    """The environment: no variable of this machine but PATH; the demo uses any free port."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "tierway").symlink_to(BINARY.resolve())
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "TIERWAY__SERVER__LISTEN": "127.0.0.1:0"}


def run(shell, commands):
    """The output of the commands, stdout and stderr, and how long they took."""
    begun = time.monotonic()
    shell.stdin.write(f"{commands}\necho; echo '{END}'\n")
    shell.stdin.flush()
    said = []
    for line in shell.stdout:
        if line.strip() == END:
            return "".join(said), time.monotonic() - begun
        said.append(line)
    raise SystemExit(f"the shell ended:\n{''.join(said)}")


def main():
    commands = blocks()
    if len(commands) != len(PROMISED):
        raise SystemExit(f"the page has {len(commands)} blocks, and {len(PROMISED)} are known")
    with tempfile.TemporaryDirectory(prefix="tierway-quickstart-") as name:
        folder = Path(name)
        shell = subprocess.Popen(
            ["bash", "-e"], cwd=folder, env=surroundings(folder), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(shell.pid, signal.SIGKILL))
        signal.alarm(PATIENCE * len(commands))
        try:
            for (step, promised), block in zip(PROMISED, commands):
                if "--config gateway.toml >" in block:
                    # The gateway must use the page's own listen address.
                    block = "unset TIERWAY__SERVER__LISTEN\n" + block
                said, took = run(shell, block)
                missing = [pattern for pattern in promised if not re.search(pattern, said)]
                if missing:
                    raise SystemExit(f"{step}: {missing} is not in what was printed:\n{said}")
                print(f"  {took:5.1f} s  {step}")
        finally:
            # The shell leads a process group of its own, which contains whatever a failed step left running.
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            shell.wait()


if __name__ == "__main__":
    main()
