"""Packs a release: an archive of the binary, the configuration, licences and the SBOM, packages for pip, npm and Debian, and
checksums of what is published.

`make dist` builds the binary and has the SBOM written by cargo-cyclonedx; both are arguments here. The archive is the same
for the same input: names are sorted, and times are those of the commit. It must never pack an SBOM that lacks a crate.

Start reading in `main`.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from packages import packages, tar_gz

ROOT = Path(__file__).resolve().parent.parent
#: What is packed beside the binary, licences and SBOM.
FILES = [
    "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "config/tierway.example.toml", "config/tierway.schema.json",
    "config/systemd", "config/prometheus", "config/grafana",
]
LICENCE_FILES = re.compile(r"(?i)(licen[cs]e|copying|notice|unlicense|copyright)([-_.].*)?")


def said(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(target):
    """The crates that are linked into the binary, by name and version: those of tests and build scripts are not."""
    metadata = json.loads(said("cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, left = set(), [root]
    while left:
        if (one := left.pop()) in found:
            continue
        found.add(one)
        if is_macro(packages[one]):
            continue
        deps = nodes[one]["deps"]
        left += [dep["pkg"] for dep in deps if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    crates = [packages[one] for one in found - {root} if not is_macro(packages[one])]
    return sorted(crates, key=lambda crate: (crate["name"], crate["version"]))


def is_macro(package):
    """Whether it runs in the compiler: neither it nor what it needs is linked."""
    return any("proc-macro" in target["kind"] for target in package["targets"])


def notices(crates):
    """The licences of what is linked, each text once."""
    texts, unnamed = {}, []
    for crate in crates:
        folder = Path(crate["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and LICENCE_FILES.fullmatch(file.name))
        for file in files:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(f"{crate['name']} {crate['version']}")
        if not files:
            unnamed.append(crate)
    parts = ["What is linked into tierway, and its licences.\n"]
    parts += [f"{crate['name']} {crate['version']}: {crate['license']}" for crate in crates]
    if unnamed:
        parts.append("\nThese have no file with their licence; its text is in LICENSE, or among the following ones:\n")
        parts += [f"{crate['name']} {crate['version']}: {crate['license']}" for crate in unnamed]
    for text, names in texts.items():
        parts.append(f"\n{'-' * 100}\n{', '.join(dict.fromkeys(names))}\n\n{text}")
    return "\n".join(parts) + "\n"


def page_packages():
    """What the page of the dashboard is made of, as crates are described; none where it was not built."""
    page = ROOT / "dashboard"
    names = json.loads((page / "package.json").read_text())["dependencies"]
    manifests = [page / "node_modules" / name / "package.json" for name in names]
    found = [{**json.loads(path.read_text()), "manifest_path": str(path)} for path in manifests if path.is_file()]
    return found if (page / "dist" / "dashboard.js").is_file() else []


def check_sbom(sbom, crates):
    document = json.loads(sbom)
    if document.get("bomFormat") != "CycloneDX":
        raise SystemExit("the SBOM is not one of CycloneDX")
    listed = {(component["name"], component["version"]) for component in document.get("components", [])}
    missing = [f"{crate['name']} {crate['version']}" for crate in crates if (crate["name"], crate["version"]) not in listed]
    if missing:
        raise SystemExit(f"the SBOM lacks {', '.join(missing)}")


def files():
    for name in FILES:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield str(file.relative_to(ROOT)), file.read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--sbom", type=Path, required=True, help="what cargo-cyclonedx wrote, as JSON")
    parser.add_argument("--target", help="what the binary was built for; otherwise this machine's")
    parser.add_argument("--into", type=Path, required=True, help="the folder of what is published")
    args = parser.parse_args()
    target = args.target or said("rustc", "--print", "host-tuple").strip()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    crates = linked(target)
    sbom = args.sbom.read_bytes()
    check_sbom(sbom, crates)
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or said("git", "log", "-1", "--format=%ct"))
    name = f"tierway-{version}-{target}"
    binary = args.binary.read_bytes()
    licences = {"LICENSE": (ROOT / "LICENSE").read_bytes(), "THIRD-PARTY-LICENSES": notices(crates + page_packages()).encode()}
    entries = {**dict(files()), **licences, "tierway": binary, "tierway.cdx.json": sbom}
    archive = tar_gz({f"{name}/{file}": content for file, content in entries.items()}, {f"{name}/tierway"}, seconds, 9)
    unit = (ROOT / "config/systemd/tierway.service").read_text()
    published = {
        f"{name}.tar.gz": archive,
        f"{name}.cdx.json": sbom,
        **packages(binary, version, target, licences, unit, seconds),
    }
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in sorted(published.items()))
    args.into.mkdir(parents=True, exist_ok=True)
    for file, content in {**published, "SHA256SUMS": sums.encode()}.items():
        (args.into / file).write_bytes(content)
        print(args.into / file)


if __name__ == "__main__":
    main()
