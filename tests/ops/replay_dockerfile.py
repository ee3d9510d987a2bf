"""Builds and starts the image of `Dockerfile` without a container engine.

    replay_dockerfile.py                 everything, with a release build on this machine's toolchain
    replay_dockerfile.py --binary PATH   the same, with PATH in place of what `cargo build` would make

Each stage becomes a directory; COPY honours `.dockerignore` and keeps times and owners; RUN steps run
as they are written. Then the image's command starts with the image's environment, as the image's user,
in a root directory that holds the image and the shared libraries of its base, and nothing else; its
health check must succeed, and its stop signal must end it cleanly.

What this cannot show: that the base images can be pulled, and what is in them. `BUILDER_TOOLS` and
`RUNTIME_LIBRARIES` say what is taken for granted.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
BUILD_ARGS = {"TIERWAY_VERSION": "0-replayed", "TIERWAY_REVISION": "replayed"}
CARGO_BUILD = "build --release --locked"
METRICS_TOKEN = "twm-image-0123456789abcdef"

# What the image `rust:*-slim-bookworm` has: Rust, gcc without g++, and Debian's base. No cmake, make,
# pkg-config, git or Python: a crate that begins to need one fails the full replay.
BUILDER_TOOLS = (
    "cargo rustc cc gcc as ld ar ranlib nm strip objcopy sh bash dash env perl "
    "cat chmod cp dirname echo expr false grep ln ls mkdir mv rm sed sort tail head touch tr true uname"
).split()
# What of Debian's the image `distroless/cc-debian12` has for a program in Rust.
RUNTIME_LIBRARIES = re.compile(r"(ld-linux-[\w-]+|lib(c|m|dl|rt|pthread|gcc_s))\.so\.\d+$")
# The commands that RUN steps may use, because they run on this machine.
RUN_COMMANDS = {"mkdir", "echo", "touch", "rm", "cargo", "npm"}
# What a stage from the image `node:*` has besides.
NODE_TOOLS = ("node", "npm")

START_WITHIN_S = 30
STOP_WITHIN_S = 20


class Wrong(Exception):
    """A defect of the Dockerfile, or of the image it builds."""


def demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


# --- reading -------------------------------------------------------------------------------


@dataclass
class Step:
    instruction: str
    flags: dict[str, str]
    rest: str


def parse(text: str) -> list[Step]:
    """The steps of a Dockerfile; what this file does not use (heredocs, ONBUILD, …) is refused later."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = []
    for line in joined.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        flags = {}
        while match := re.match(r"--(\w[\w-]*)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        steps.append(Step(instruction.upper(), flags, rest.strip()))
    return steps


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether `.dockerignore` keeps `path`, relative to the project, out: the last match counts, and
    a pattern matches whatever is below what it matches."""
    parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 2)]
    out = False
    for pattern in patterns:
        regex = re.escape(pattern.removeprefix("!").strip("/"))
        regex = regex.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, parent) for parent in parents):
            out = not pattern.startswith("!")
    return out


def context(project: Path) -> list[str]:
    """The build context: what a clone would have, without what `.dockerignore` names."""
    patterns = [line for line in (project / ".dockerignore").read_text().split("\n") if line and line[0] != "#"]
    listing = ["git", "-C", project, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, capture_output=True, text=True)
    if listed.returncode == 0:
        files = listed.stdout.split("\0")
    else:  # not a clone but an unpacked archive
        files = [str(path.relative_to(project)) for path in project.rglob("*")]
    return sorted(f for f in files if f and not ignored(f, patterns) and (project / f).is_file())


# --- building ------------------------------------------------------------------------------


@dataclass
class Image:
    """A stage: its files and the values of its instructions."""

    root: Path
    base: str
    workdir: str = "/"
    user: str = "0:0"
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        return self.root / os.path.normpath(os.path.join("/", self.workdir, inside)).lstrip("/")


class Replay:
    """Replays a Dockerfile below `folder`; with `binary`, no cargo runs and it is taken as built."""

    def __init__(self, folder: Path, binary: Path | None):
        self.folder = folder
        self.binary = binary
        self.stages: dict[str, Image] = {}
        self.tools = folder / "tools"
        self.tools.mkdir()
        self._lay_out_tools()

    def run(self, dockerfile: Path) -> Image:
        """The last stage."""
        demand((steps := parse(dockerfile.read_text()))[0].instruction == "FROM", "it does not begin with FROM")
        image = None
        for step in steps:
            flags = "".join(f"--{name}={value} " for name, value in step.flags.items())
            print(f"  {step.instruction} {flags}{step.rest}", flush=True)
            if step.instruction == "FROM":
                image = self._begin(step.rest)
                continue
            perform = getattr(self, f"_{step.instruction.lower()}", None)
            demand(perform, f"{step.instruction} is not replayed here")
            perform(image, step)
        return image

    def _begin(self, rest: str) -> Image:
        base, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", rest).groups()
        root = self.folder / f"stage-{len(self.stages)}"
        root.mkdir(mode=0o755)
        image = Image(root, base)
        self.stages[name or "final"] = image
        return image

    def _workdir(self, image: Image, step: Step) -> None:
        image.workdir = os.path.join(image.workdir, step.rest)
        image.path(".").mkdir(parents=True, exist_ok=True)

    def _arg(self, image: Image, step: Step) -> None:
        name, _, default = step.rest.partition("=")
        image.args[name] = BUILD_ARGS.get(name, default)

    def _env(self, image: Image, step: Step) -> None:
        image.env.update(self._pairs(image, step))

    def _label(self, image: Image, step: Step) -> None:
        image.labels.update(self._pairs(image, step))

    def _pairs(self, image: Image, step: Step) -> dict[str, str]:
        def value(match: re.Match) -> str:
            known = {**image.args, **image.env}
            demand(match[1] in known, f"{step.instruction}: {match[0]} is not declared above")
            return known[match[1]]

        pairs = (pair.split("=", 1) for pair in shlex.split(step.rest))
        return {name: re.sub(r"\$\{?(\w+)\}?", value, text) for name, text in pairs}

    def _user(self, image: Image, step: Step) -> None:
        image.user = step.rest

    def _expose(self, image: Image, step: Step) -> None:
        image.ports += step.rest.split()

    def _volume(self, image: Image, step: Step) -> None:
        image.volumes += step.rest.split()

    def _stopsignal(self, image: Image, step: Step) -> None:
        image.stop_signal = step.rest

    def _entrypoint(self, image: Image, step: Step) -> None:
        image.entrypoint = exec_form(step.rest)

    def _cmd(self, image: Image, step: Step) -> None:
        image.command = exec_form(step.rest)

    def _healthcheck(self, image: Image, step: Step) -> None:
        demand(step.rest.startswith("CMD "), "HEALTHCHECK: CMD is missing")
        image.healthcheck = exec_form(step.rest.removeprefix("CMD "))

    def _copy(self, image: Image, step: Step) -> None:
        *sources, target = step.rest.split()
        into = image.path(target)
        created = [parent for parent in (into, *into.parents) if not parent.exists()]
        into_directory = target.endswith("/") or len(sources) > 1
        copied: list[Path] = []
        for source in sources:
            copied += self._copy_one(step, source, into, into_directory)
        demand(copied or "from" in step.flags, f"COPY {step.rest}: nothing to copy; see .dockerignore")
        # Docker gives the parent directories it creates to the same owner.
        self._give(step.flags.get("chown", "0:0"), copied + [path for path in created if path == into])

    def _copy_one(self, step: Step, source: str, into: Path, into_directory: bool) -> list[Path]:
        if "from" in step.flags:
            base = self.stages[step.flags["from"]].path(source)
            files = [p for p in base.rglob("*") if p.is_file()] if base.is_dir() else [base]
        else:
            base = PROJECT / source
            files = [PROJECT / f for f in context(PROJECT) if base == PROJECT / f or base in (PROJECT / f).parents]
            demand(files, f"COPY {source}: not in the build context")
        if base.is_dir():
            into.mkdir(parents=True, exist_ok=True)
            pairs = [(file, into / file.relative_to(base)) for file in files]
        else:
            pairs = [(base, into / base.name if into_directory else into)]
        for origin, place in pairs:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, place)
        return [place for _, place in pairs]

    @staticmethod
    def _give(owner: str, paths: list[Path]) -> None:
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, *map(int, owner.split(":")))

    def _run(self, image: Image, step: Step) -> None:
        for part in step.rest.split("&&"):
            demand(part.split()[0] in RUN_COMMANDS, f"RUN {part.strip()}: not a command that is replayed here")
        demand(not re.search(r"""(^|[\s'"=>])/""", step.rest), f"RUN {step.rest}: an absolute path would be this machine's")
        kept = {name: os.environ[name] for name in ("HOME", "CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
        environment = {**kept, **image.args, **image.env, "PATH": str(self.tools)}
        done = subprocess.run(["/bin/sh", "-c", step.rest], cwd=image.path("."), env=environment)
        demand(done.returncode == 0, f"RUN {step.rest}: exit {done.returncode}")
        if self.binary and "cargo build" in step.rest and "rm -r src" not in step.rest:
            self._everything_compiled_is_there(image.path("."))

    def _lay_out_tools(self) -> None:
        demand(shutil.which("cargo"), "cargo is not on the PATH")
        for name in BUILDER_TOOLS:
            if found := shutil.which(name):
                (self.tools / name).symlink_to(found)
        self._lay_out_npm()
        if self.binary:
            cargo = (self.tools / "cargo").readlink()
            (self.tools / "cargo").unlink()
            # The copied manifest must be complete; then the given binary is used as the build's result.
            (self.tools / "cargo").write_text(
                f'#!/bin/sh\nset -e\n[ "$*" = "{CARGO_BUILD}" ]\n'
                f"{cargo} metadata --no-deps --format-version 1 >target.json && rm target.json\n"
                f"mkdir -p target/release\ncp '{self.binary}' target/release/tierway\n"
            )
            (self.tools / "cargo").chmod(0o755)

    def _lay_out_npm(self) -> None:
        if not self.binary:
            for name in NODE_TOOLS:
                demand(found := shutil.which(name), f"{name} is not on the PATH")
                (self.tools / name).symlink_to(found)
            return
        # The page that was built for the given binary is used as the build's result.
        page = PROJECT / "dashboard" / "dist"
        (self.tools / "npm").write_text(
            f'#!/bin/sh\nset -e\n[ -f package-lock.json ]\ncase "$1" in\n'
            f"ci) ;;\nrun) [ -f src/main.tsx ]; mkdir -p dist; for file in '{page}'/*; do cp \"$file\" dist/; done ;;\n"
            f"*) exit 1 ;;\nesac\n"
        )
        (self.tools / "npm").chmod(0o755)

    def _everything_compiled_is_there(self, source: Path) -> None:
        """Checks that everything of the project that the binary was built from was copied into the stage: files, and the
        folder that build.rs looks at."""
        listing = self.binary.with_suffix(".d")
        read = [] if not listing.exists() else listing.read_text().replace("\\ ", " ").split(f" {PROJECT}/")[1:]
        if not read:
            print(f"  (no list of sources beside {self.binary}: whether COPY brings all of them is not checked)")
        for path in (path.strip() for path in read):
            demand((source / path).exists(), f"{path} is compiled in, and not copied into the image's builder")


def exec_form(text: str) -> list[str]:
    demand(text.startswith("["), f"{text}: not in exec form; there is no shell in the image")
    return json.loads(text)


# --- starting ------------------------------------------------------------------------------


def bring_libraries(image: Image) -> None:
    """Copies the libraries the binary is linked to, which must be those of the base image."""
    program = image.path(image.entrypoint[0])
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        if not (match := re.search(r"(/\S+)", line)):
            demand("linux-vdso" in line or "statically linked" in line, f"ldd: {line.strip()}")
            continue
        library = Path(match[1])
        demand(RUNTIME_LIBRARIES.match(library.name), f"{library.name} is not in {image.base}")
        place = image.root / str(library).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), place)


class Jail:
    """Starts programs in the image's root, as its user, with its environment."""

    def __init__(self, image: Image):
        self.image = image
        self.uid, self.gid = map(int, image.user.split(":"))
        self.prefix: list[str] = []
        self.as_root = os.geteuid() == 0
        if not self.as_root:
            enter = [shutil.which("unshare") or "unshare", "--user", f"--map-user={self.uid}", f"--map-group={self.gid}"]
            works = shutil.which("unshare") and subprocess.run([*enter, "true"], capture_output=True).returncode == 0
            self.prefix = [*enter, f"--root={image.root}", f"--wd={image.workdir}", "--"] if works else []

    def describe(self) -> str:
        if self.as_root or self.prefix:
            return f"in {self.image.root} as {self.image.user}"
        return "NOT ISOLATED: neither root nor allowed a user namespace; this machine's root, your user"

    def start(self, command: list[str], listen: str, **options) -> subprocess.Popen:
        environment = {**self.image.env, "TIERWAY__SERVER__LISTEN": listen}
        environment["TIERWAY__TELEMETRY__METRICS_TOKEN"] = METRICS_TOKEN
        if self.as_root:
            options["preexec_fn"] = self._enter
        elif self.prefix:
            command = [*self.prefix, *command]
        else:
            command = [str(self.image.path(command[0])), *command[1:]]
            options["cwd"] = self.image.path(".")
            # The volume is not where the image says.
            environment["TIERWAY__STORE__URL"] = "sqlite:tierway.db"
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, text=True, **options)

    def _enter(self) -> None:
        os.chroot(self.image.root)
        os.chdir(self.image.workdir)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)


def start_and_ask(image: Image, built_here: bool) -> None:
    """Starts the image's command, runs its health check, and stops it."""
    jail = Jail(image)
    print(f"starting {' '.join(image.entrypoint + image.command)} {jail.describe()}", flush=True)
    with (image.root.parent / "stderr").open("w+") as stderr:
        # The image's own address, except that the system chooses the port.
        any_port = image.env["TIERWAY__SERVER__LISTEN"].rsplit(":", 1)[0] + ":0"
        gateway = jail.start(image.entrypoint + image.command, any_port, stdout=subprocess.PIPE, stderr=stderr)
        impatience = threading.Timer(START_WITHIN_S, gateway.kill)
        impatience.start()
        try:
            said = gateway.stdout.readline()
            impatience.cancel()
            stderr.seek(0)
            demand(said.startswith("listening on http://"), f"it did not start: {said}{stderr.read()}")
            address = said.strip().removeprefix("listening on http://")
            demand(health(jail, address) == 0, "the health check fails while the gateway serves")
            if built_here:
                check_build_info(address.rsplit(":", 1)[1])
            gateway.send_signal(getattr(signal, image.stop_signal))
            demand(gateway.wait(STOP_WITHIN_S) == 0, f"{image.stop_signal} ended it with {gateway.returncode}")
            demand(health(jail, address) == 1, "the health check succeeds with no gateway")
        finally:
            impatience.cancel()
            gateway.kill()
            gateway.wait()
            gateway.stdout.close()
    keeps_its_receipts(image)


def keeps_its_receipts(image: Image) -> None:
    """Checks what a container writes to its volume and removes it, because it is not part of the image."""
    [volume] = map(image.path, image.volumes)
    written = sorted(path.name for path in volume.iterdir())
    demand(written == ["tierway.db", "tierway.db.lock"], f"a gateway that has stopped leaves {written} in its volume")
    for name in written:
        (volume / name).unlink()


def health(jail: Jail, address: str) -> int:
    asked = jail.start(jail.image.healthcheck, address, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"  {asked.communicate(timeout=START_WITHIN_S)[0].strip()}: exit {asked.returncode}", flush=True)
    return asked.returncode


def check_build_info(port: str) -> None:
    """Checks that the binary was built here, from these sources, with these arguments."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    metrics = opener.open(request, timeout=5).read().decode()
    version = tomllib.loads((PROJECT / "Cargo.toml").read_text())["package"]["version"]
    expected = f'tierway_build_info{{revision="{BUILD_ARGS["TIERWAY_REVISION"]}",version="{version}"}} 1'
    demand(expected in metrics, f"/metrics does not say {expected}")


def replay(folder: Path, binary: Path | None, dockerfile: Path = PROJECT / "Dockerfile") -> Image:
    """Builds the image below `folder`, starts it, and returns it for a closer look."""
    folder.mkdir(exist_ok=True)
    image = Replay(folder, binary).run(dockerfile)
    bring_libraries(image)
    start_and_ask(image, built_here=binary is None)
    return image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", type=Path, help="in place of what `cargo build` would make")
    binary = parser.parse_args().binary
    with tempfile.TemporaryDirectory(prefix="tierway-image-") as folder:
        try:
            replay(Path(folder), binary and binary.resolve(strict=True))
        except Wrong as wrong:
            print(f"Dockerfile: {wrong}", file=sys.stderr)
            return 1
    print("the image builds, starts, answers and stops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
