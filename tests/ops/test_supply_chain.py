"""What is installed for tests is pinned by hash, and what is released says what is in it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest
from stage import PROJECT

FOLDERS = sorted(path.parent for path in PROJECT.glob("tests/**/requirements.in") if ".venv" not in path.parts)
LOCKS = sorted(path for path in PROJECT.glob("*/**/package-lock.json") if "node_modules" not in path.parts)
MAKEFILE = (PROJECT / "Makefile").read_text()


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_python_package_is_pinned_with_its_hashes(folder):
    """pip refuses what has none; a wheel and a source distribution, or wheels for several machines, are two files."""
    text = (folder / "requirements.txt").read_text().replace("\\\n", " ")
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert rows
    for row in rows:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+ ", row), row
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}(?!\S)", row) and "sha256" in row, row
    pinned = {name_of(row) for row in rows}
    asked = [line for line in (folder / "requirements.in").read_text().splitlines() if line and not line.startswith("#")]
    assert {name_of(line) for line in asked} <= pinned


def test_every_folder_has_its_list():
    lists = {path.parent for path in PROJECT.glob("tests/**/requirements.txt") if ".venv" not in path.parts}
    assert lists == set(FOLDERS) and len(FOLDERS) >= 6


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_every_npm_package_is_pinned_with_its_hash(lock):
    packages = json.loads(lock.read_text())["packages"]
    rows = {name: package for name, package in packages.items() if name and not package.get("link")}
    assert rows and all(package["integrity"].startswith("sha512-") for package in rows.values())


def test_nothing_is_installed_otherwise():
    installs = [line.strip() for line in MAKEFILE.splitlines() if re.search(r"pip (install|download)|npm (install|i|ci)\b", line)]
    joined = MAKEFILE.replace("\\\n", " ")
    assert len(installs) == 4, installs
    for line in joined.splitlines():
        if re.search(r"-m pip (install|download)", line):
            assert "--require-hashes" in line and "-r " in line, line
    assert all(re.search(rf"^\tcd {folder} && npm ci ", MAKEFILE, re.M) for folder in [r"tests/\$\*", "dashboard"])
    assert all("--locked" in line for line in joined.splitlines() if re.search(r"^\s*cargo install|; cargo install|then\s+cargo install", line))


def packed(tmp_path, components: list[dict]):
    sbom = tmp_path / "sbom.json"
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "components": components}))
    # What is packed is not run here.
    (tmp_path / "binary").write_bytes(b"tierway")
    command = [sys.executable, PROJECT / "release/dist.py", "--binary", tmp_path / "binary", "--sbom", sbom]
    command += ["--into", tmp_path / "dist"]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_a_release_says_what_is_in_it(tmp_path):
    incomplete = packed(tmp_path, [])
    assert incomplete.returncode != 0 and "the SBOM lacks" in incomplete.stderr, incomplete.stderr
    crates = re.findall(r"([\w-]+) (\d\S*?)(?:,|$)", incomplete.stderr.partition("lacks ")[2].strip())
    assert len(crates) > 50 and not {name for name, _ in crates} & {"insta", "rcgen", "syn", "tierway"}
    components = [{"name": name, "version": version} for name, version in crates]
    first = packed(tmp_path, components)
    assert first.returncode == 0, first.stderr
    [archive] = (tmp_path / "dist").glob("*.tar.gz")
    before = archive.read_bytes()
    assert packed(tmp_path, components).returncode == 0 and archive.read_bytes() == before, "the same for the same input"
    for line in (tmp_path / "dist/SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "dist" / name).read_bytes()).hexdigest() == digest
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        assert {"tierway", "LICENSE", "THIRD-PARTY-LICENSES", "tierway.cdx.json", "config/tierway.example.toml"} <= names
        folder = archive.name.removesuffix(".tar.gz")
        licences = tar.extractfile(f"{folder}/THIRD-PARTY-LICENSES").read().decode()
        assert tar.getmember(f"{folder}/tierway").mode == 0o755
    assert all(f"{name} {version}: " in licences for name, version in crates)
    assert "Permission is hereby granted" in licences
