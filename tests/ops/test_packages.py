"""The packages that `make dist` publishes: each is installed in a clean place, and what it installed serves."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request

import pytest
from stage import ANSWER_WITHIN_S, BINARY, PROJECT, STOP_WITHIN_S

sys.path.insert(0, str(PROJECT / "release"))

from packages import glibc, packages, pep440

VERSION = tomllib.loads((PROJECT / "Cargo.toml").read_text())["package"]["version"]
SECONDS = 1_700_000_000
LICENCES = {"LICENSE": (PROJECT / "LICENSE").read_bytes(), "THIRD-PARTY-LICENSES": b"What is linked.\n"}
UNIT = (PROJECT / "config/systemd/tierway.service").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The packages of the debug binary, without its symbols, which nobody is sent."""
    folder = tmp_path_factory.mktemp("packages")
    stripped = folder / "stripped"
    subprocess.run(["strip", "-o", stripped, BINARY], check=True)
    target = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, check=True, text=True).stdout.strip()
    found = packages(stripped.read_bytes(), VERSION, target, LICENCES, UNIT, SECONDS, level=1)
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return {name.rpartition(".")[2]: folder / name for name in found}


def serves(program, folder):
    """Starts the demo of `program`, asks it once whether it lives, and stops it."""
    command = [program, "serve", "--listen", "127.0.0.1:0"]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    running = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        [origin] = re.findall(r"listening on (http://\S+)", running.stdout.readline())
        with urllib.request.urlopen(f"{origin}/livez", timeout=ANSWER_WITHIN_S) as answer:
            assert answer.status == 200
    finally:
        running.terminate()
        running.communicate(timeout=STOP_WITHIN_S)
    assert running.returncode == 0
    said = subprocess.run([program, "version"], capture_output=True, check=True, text=True).stdout
    assert said == f"tierway {VERSION}\n"


def test_pip_installs_what_serves(built, tmp_path):
    place = tmp_path / "place"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    # Of what is here alone: nothing is asked of an index.
    subprocess.run([*pip, "install", "--quiet", "--no-index", built["whl"]], check=True)
    serves(place / "bin/tierway", tmp_path)
    shown = subprocess.run([*pip, "show", "--files", "tierway"], capture_output=True, check=True, text=True).stdout
    assert "THIRD-PARTY-LICENSES" in shown and f"Version: {pep440(VERSION)}" in shown
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "tierway"], check=True)
    assert not (place / "bin/tierway").exists()


@pytest.mark.parametrize(("version", "written"), [("1.0.0", "1.0.0"), ("1.0.0-rc.1", "1.0.0rc1"), ("1.2.3-beta4", "1.2.3b4")])
def test_python_writes_versions_in_its_own_way(version, written):
    assert pep440(version) == written


@pytest.mark.parametrize("version", ["1.0.0-rc", "1.0.0-pre.1", "1.0.0-rc.1.2", "1.0.0+build", "1.0.0-rc.1+build", "1.0.0-"])
def test_no_other_version_is_taken_for_the_final_one(version):
    with pytest.raises(ValueError, match="write a pre-release"):
        pep440(version)


def test_npm_installs_what_serves(built, tmp_path):
    env = {**os.environ, "npm_config_cache": str(tmp_path / "cache"), "npm_config_update_notifier": "false"}
    command = ["npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tmp_path, built["tgz"]]
    subprocess.run(command, check=True, env=env, capture_output=True)
    serves(tmp_path / "node_modules/.bin/tierway", tmp_path)


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is Debian's")
def test_dpkg_installs_what_serves(built, tmp_path):
    root = tmp_path / "root"
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "tmp"]:
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    # The C library is that of this machine: the place has no other package.
    forced = ["--force-not-root", "--force-bad-path", "--force-depends"]
    command = ["dpkg", *forced, f"--root={root}", f"--log={tmp_path}/dpkg.log", "--install", built["deb"]]
    subprocess.run(command, check=True, capture_output=True)
    serves(root / "usr/bin/tierway", tmp_path)
    unit = (root / "usr/lib/systemd/system/tierway.service").read_text()
    assert "ExecStart=/usr/bin/tierway serve" in unit and "/usr/local" not in unit.partition("[Unit]")[2]
    field = lambda name: subprocess.run(
        ["dpkg-deb", "--field", built["deb"], name], capture_output=True, check=True, text=True
    ).stdout.strip()
    assert field("Version") == VERSION and re.fullmatch(r"libc6 \(>= 2\.\d+\)", field("Depends"))
    sums = subprocess.run(["md5sum", "--check", "--quiet", root / "var/lib/dpkg/info/tierway.md5sums"], cwd=root)
    assert sums.returncode == 0


def test_a_package_says_what_its_binary_needs():
    binary = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0"
    names = lambda target: sorted(packages(binary, "1.0.0-rc.1", target, LICENCES, UNIT, SECONDS, level=1))
    assert glibc(binary) == (2, 34) and glibc(b"") == (2, 17)
    assert names("x86_64-unknown-linux-gnu") == [
        "tierway-1.0.0rc1-py3-none-manylinux_2_34_x86_64.whl", "tierway-linux-x64-1.0.0-rc.1.tgz", "tierway_1.0.0~rc.1_amd64.deb",
    ]
    assert names("aarch64-unknown-linux-musl") == [
        "tierway-1.0.0rc1-py3-none-musllinux_1_1_aarch64.whl", "tierway-linux-arm64-musl-1.0.0-rc.1.tgz",
        "tierway_1.0.0~rc.1_arm64.deb",
    ]
    assert names("aarch64-apple-darwin") == [
        "tierway-1.0.0rc1-py3-none-macosx_11_0_arm64.whl", "tierway-darwin-arm64-1.0.0-rc.1.tgz",
    ]
    assert names("x86_64-pc-windows-msvc") == []
    same = lambda: packages(binary, "1.0.0", "x86_64-unknown-linux-gnu", LICENCES, UNIT, SECONDS, level=1)
    assert same() == same(), "the same for the same input"
