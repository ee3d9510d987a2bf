"""The image: linted, and its build replayed with the debug binary in place of a release build."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from replay_dockerfile import BUILD_ARGS, Wrong, context, ignored, parse, replay
from stage import BINARY, PROJECT

DOCKERFILE = PROJECT / "Dockerfile"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return replay(tmp_path_factory.mktemp("image"), BINARY)


def test_hadolint_is_quiet():
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_it_starts_where_it_says(image):
    assert image.entrypoint + image.command == ["/tierway", "serve"]
    assert image.healthcheck == ["/tierway", "healthcheck"]
    address, port = image.env["TIERWAY__SERVER__LISTEN"].rsplit(":", 1)
    assert address == "0.0.0.0" and image.ports == [port]


def test_receipts_outlive_the_container(image):
    [volume] = image.volumes
    assert image.env["TIERWAY__STORE__URL"] == f"sqlite:{volume}/tierway.db"
    assert image.workdir == volume


def test_its_user_is_a_number_other_than_root_and_owns_the_volume_alone(image):
    uid, gid = map(int, image.user.split(":"))
    assert uid > 0 and gid > 0
    volume = image.path("/var/lib/tierway")
    assert image.volumes == ["/var/lib/tierway"] and volume.is_dir()
    if os.geteuid() == 0:
        owned = [path for path in [image.root, *image.root.rglob("*")] if path.lstat().st_uid == uid]
        assert owned == [volume]


def test_it_holds_the_program_its_licence_and_nothing_of_ours_beside(image):
    ours = {str(path.relative_to(image.root)) for path in image.root.rglob("*") if path.is_file()}
    assert {path for path in ours if not path.startswith(("lib", "usr/lib"))} == {"tierway", "LICENSE"}


def test_its_labels_say_what_it_is(image):
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}
    package = tomllib.loads((PROJECT / "Cargo.toml").read_text())["package"]
    assert labels["title"] == package["name"]
    assert labels["description"] == package["description"]
    assert labels["licenses"] == package["license"]
    assert labels["version"] == BUILD_ARGS["TIERWAY_VERSION"]
    assert labels["revision"] == BUILD_ARGS["TIERWAY_REVISION"]
    assert labels["base.name"] == image.base


def test_it_is_built_with_the_rust_the_package_asks_for():
    package = tomllib.loads((PROJECT / "Cargo.toml").read_text())["package"]
    bases = [step.rest for step in parse(DOCKERFILE.read_text()) if step.instruction == "FROM"]
    assert any(base.startswith(f"rust:{package['rust-version']}-") for base in bases), bases


def test_the_context_is_what_the_build_needs():
    files = context(PROJECT)
    needed = {"Cargo.toml", "Cargo.lock", "LICENSE", "build.rs", "src/main.rs", "config/tierway.toml", "dashboard/src/main.tsx"}
    assert needed <= set(files)
    top = {file.split("/")[0] for file in files}
    assert top == {"Cargo.toml", "Cargo.lock", "LICENSE", "build.rs", "src", "config", "dashboard"}
    assert not [file for file in files if file.startswith(("dashboard/dist", "dashboard/node_modules", "dashboard/tests"))]
    assert not [file for file in files if file.startswith("config/") and not re.fullmatch(r"config/\w[\w.]*\.toml", file)]


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("a", ["*"], True),
        ("a/b/c", ["*"], True),
        ("a/b", ["*", "!a"], False),
        ("a/b", ["!a", "*"], True),
        ("a/b.toml", ["*", "!a/*.toml"], False),
        ("a/b/c.toml", ["*", "!a/*.toml"], True),
        ("a/x/c", ["a/**/x"], True),
        ("a/b/x/c", ["a/**/x"], True),
        ("a/xx", ["a/**/x"], False),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(path, patterns, expected):
    assert ignored(path, patterns) == expected


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("COPY config/ config/\n", "", "config/prices.toml is compiled in"),
        ("RUN mkdir src", "RUN apt-get install git && mkdir src", "not a command that is replayed"),
        ("echo 'fn main() {}' >src/main.rs", "echo >/src/main.rs", "absolute path"),
        (" --locked", "", "exit"),
        ('CMD ["serve"]', "CMD serve", "not in exec form"),
        ("ARG TIERWAY_VERSION=unknown\n", "", "not declared"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "SIGKILL ended it"),
        ("0.0.0.0:8080", "nonsense:8080", "did not start"),
        ('"healthcheck"]', '"healthcheck", "--path", "/nowhere"]', "health check fails"),
    ],
)
def test_the_replay_notices(tmp_path, monkeypatch, was, becomes, complaint):
    text = DOCKERFILE.read_text()
    assert was in text
    (tmp_path / "Dockerfile").write_text(text.replace(was, becomes))
    with pytest.raises(Wrong, match=complaint):
        replay(tmp_path / "image", BINARY, tmp_path / "Dockerfile")
