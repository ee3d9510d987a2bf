"""The binary as packages: a wheel for PyPI, an npm package, a Debian package. `dist.py` publishes them.

Each carries the same binary and nothing to compile; none runs a script when it is installed. They are the same for the
same input: names are sorted, times are given. A package says what its binary needs of a machine: system, processor and C
library, whose version is read from the binary.

Start reading in `packages`.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import time
import zipfile

NAME = "tierway"
SUMMARY = "An OpenAI-compatible model gateway: tiers, measured failover, honest streams, keys with policies."
LICENCE = "Apache-2.0"
#: Where the unit of systemd has the binary, and where the Debian package has it.
UNIT_BINARY, DEBIAN_BINARY = "/usr/local/bin/tierway", "/usr/bin/tierway"
#: The processor by its name in a target, for Python, npm and Debian.
PROCESSORS = {"x86_64": ("x86_64", "x64", "amd64"), "aarch64": ("aarch64", "arm64", "arm64")}
#: The oldest C library that PyPI has a name for.
OLDEST_GLIBC = (2, 17)
README = """# Tierway

The binary of Tierway, one OpenAI-compatible gateway between applications and the models they call, packed for {}.

    tierway serve      # the built-in demo: no account, no network

`tierway --help` lists the commands.
"""


def glibc(binary):
    """The version of the C library that `binary` needs, from the names of the symbols it is linked with."""
    found = {tuple(map(int, version.split(b"."))) for version in re.findall(rb"GLIBC_(2\.\d+)", binary)}
    return max(found | {OLDEST_GLIBC})


def packages(binary, version, target, licences, unit, seconds, level=9):
    """Names to bytes of the packages for `target`, such as `x86_64-unknown-linux-gnu`; none for one without packages.

    `licences`: names to bytes of the files that go with the binary; `unit`: the one of systemd, as text.
    """
    processor, _, system = target.partition("-")
    if processor not in PROCESSORS or not ("linux" in system or "darwin" in system):
        return {}
    python, npm, debian = PROCESSORS[processor]
    is_static = system.endswith("musl")
    found = dict([wheel(binary, version, python_tag(binary, system, python), licences, seconds, level)])
    system_name = "linux" if "linux" in system else "darwin"
    libc = None if system_name == "darwin" else "musl" if is_static else "glibc"
    found.update([npm_package(binary, version, system_name, npm, libc, licences, seconds, level)])
    if system_name == "linux":
        needs = None if is_static else "libc6 (>= {}.{})".format(*glibc(binary))
        found.update([debian_package(binary, version, debian, needs, licences, unit, seconds, level)])
    return found


def python_tag(binary, system, processor):
    """What PyPI calls the machines that `binary` runs on."""
    if "darwin" in system:
        return f"macosx_11_0_{'arm64' if processor == 'aarch64' else processor}"
    if system.endswith("musl"):
        return f"musllinux_1_1_{processor}"
    return "manylinux_{}_{}_{}".format(*glibc(binary), processor)


def pep440(version):
    """A version of Cargo as Python writes it: `1.0.0-rc.1` is `1.0.0rc1`."""
    if re.fullmatch(r"\d+(\.\d+)*", version):
        return version
    number, _, before = version.partition("-")
    words = {"alpha": "a", "beta": "b", "rc": "rc"}
    found = re.fullmatch(r"(alpha|beta|rc)\.?(\d+)", before)
    if not found:
        # Without its suffix it would be taken for the final version, and no package index lets that be uploaded again.
        raise ValueError(f"{version}: write a pre-release as 1.0.0-rc.1, with alpha, beta or rc and a number")
    return number + words[found[1]] + found[2]


def wheel(binary, version, tag, licences, seconds, level):
    version = pep440(version)
    info = f"{NAME}-{version}.dist-info"
    entries = {f"{NAME}-{version}.data/scripts/{NAME}": binary}
    entries[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.4\nName: {NAME}\nVersion: {version}\nSummary: {SUMMARY}\nLicense-Expression: {LICENCE}\n"
        + "".join(f"License-File: {name}\n" for name in sorted(licences))
        + f"Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{README.format('pip')}"
    ).encode()
    entries[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tierway\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n".encode()
    entries.update({f"{info}/licenses/{name}": content for name, content in licences.items()})
    digest = lambda content: base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows = [f"{name},sha256={digest(content)},{len(content)}\n" for name, content in sorted(entries.items())]
    entries[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    packed = io.BytesIO()
    # No time before 1980 can be written.
    when = max(time.gmtime(seconds)[:6], (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as zipped:
        for name, content in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, when)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name.endswith(f"/scripts/{NAME}") else 0o100644) << 16
            zipped.writestr(entry, content)
    return f"{NAME}-{version}-py3-none-{tag}.whl", packed.getvalue()


def npm_package(binary, version, system, processor, libc, licences, seconds, level):
    name = "-".join([NAME, system, processor, *(["musl"] if libc == "musl" else [])])
    about = {
        "name": name, "version": version, "description": SUMMARY, "license": LICENCE,
        "bin": {NAME: f"bin/{NAME}"}, "files": ["bin", *sorted(licences)], "os": [system], "cpu": [processor],
        **({"libc": [libc]} if libc else {}),
    }
    entries = {
        "package/package.json": (json.dumps(about, indent=2) + "\n").encode(),
        "package/README.md": README.format("npm").encode(),
        f"package/bin/{NAME}": binary,
        **{f"package/{file}": content for file, content in licences.items()},
    }
    return f"{name}-{version}.tgz", tar_gz(entries, {f"package/bin/{NAME}"}, seconds, level)


def debian_package(binary, version, processor, needs, licences, unit, seconds, level):
    version = version.replace("-", "~")
    documents = f"usr/share/doc/{NAME}"
    entries = {
        DEBIAN_BINARY.lstrip("/"): binary,
        f"usr/lib/systemd/system/{NAME}.service": unit.replace(UNIT_BINARY, DEBIAN_BINARY).encode(),
        **{f"{documents}/{'copyright' if file == 'LICENSE' else file}": content for file, content in licences.items()},
    }
    size = sum(len(content) for content in entries.values()) // 1024
    control = (
        f"Package: {NAME}\nVersion: {version}\nArchitecture: {processor}\nMaintainer: The Tierway developers <maintainers@tierway.invalid>\n"
        f"Installed-Size: {size}\nSection: net\nPriority: optional\n"
        + (f"Depends: {needs}\n" if needs else "")
        + f"Recommends: ca-certificates\nDescription: OpenAI-compatible model gateway\n {SUMMARY}\n"
    )
    sums = "".join(f"{hashlib.md5(content).hexdigest()}  {name}\n" for name, content in sorted(entries.items()))
    dotted = {f"./{name}": content for name, content in with_folders(entries).items()}
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tar_gz({"./control": control.encode(), "./md5sums": sums.encode()}, set(), seconds, level),
        "data.tar.gz": tar_gz(dotted, {f".{DEBIAN_BINARY}"}, seconds, level),
    }
    packed = b"!<arch>\n"
    for name, content in parts.items():
        packed += f"{name:<16}{seconds:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return f"{NAME}_{version}_{processor}.deb", packed


def with_folders(entries):
    """The same and every folder on the way, which is `None`: Debian's tools want them named."""
    folders = {name.rsplit("/", depth)[0] for name in entries for depth in range(1, name.count("/") + 1)}
    return {**{f"{folder}/": None for folder in folders}, **entries}


def tar_gz(entries, programs, seconds, level):
    """A tar.gz of `entries`, names to bytes, or to `None` for a folder; owned by root, `programs` can be run."""
    packed = io.BytesIO()
    # Without the name and the time that gzip would write.
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=level) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in sorted(entries.items()):
                entry = tarfile.TarInfo(name)
                entry.mtime, entry.uname, entry.gname = seconds, "root", "root"
                entry.mode = 0o755 if content is None or name in programs else 0o644
                if content is None:
                    entry.type = tarfile.DIRTYPE
                    tar.addfile(entry)
                else:
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
