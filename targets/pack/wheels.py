"""Wheels that go with a bundle, so that a device without a network can install the program too."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Optional

import motedge
from motedge.errors import HostError, UsageError
from motedge.targets.catalog import Target
from motedge.targets.install.listing import NAME_BYTES_MAX

FOLDER = "wheels"
# NAME-VERSION(-BUILD)-PYTHON-ABI-PLATFORM.whl, packaging.python.org/specifications/binary-distribution-format
_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<tag>[^-]+)\.whl"
)
# zip can't say less than 1980; wheels of one source are then the same bytes
_EPOCH = "315532800"
# What a wheel is made of; copied, since setuptools leaves folders behind, and takes up what older builds left
_SOURCES = ("src", "motedge", "export", "quant", "runtime", "targets", "pyproject.toml", "README.md", "LICENSE")
# pyproject.toml, build-system
_SETUPTOOLS_LEAST = 77
_MACHINES = {"jetson": "aarch64", "drive": "aarch64", "spark": "aarch64", "rtx": "x86_64", "datacenter": "x86_64"}


@dataclass(frozen=True)
class Wheel:
    """One wheel by its file name."""

    path: Path
    name: str
    version: str
    # Machines it is for, of its platform tags; empty: any
    machines: tuple[str, ...]

    @property
    def member(self) -> str:
        """Path in the archive. A name that is too long loses platform tags: of alternatives one is enough."""
        head, _, last = self.path.stem.rpartition("-")
        tags = last.split(".")
        while len(f"{FOLDER}/{head}-{'.'.join(tags)}.whl") > NAME_BYTES_MAX and len(tags) > 1:
            tags.pop()
        return f"{FOLDER}/{head}-{'.'.join(tags)}.whl"


def parse_wheel(path: Path) -> Wheel:
    """By its file name; UsageError where it is none of a wheel's, or the file is not one."""
    found = _WHEEL.fullmatch(path.name)
    if found is None or not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not a wheel", expected="NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    tags = found["tag"].split(".")
    machines = () if "any" in tags else tuple(tags)
    named = ("x86_64", "aarch64", "armv7l", "i686", "arm64", "amd64")
    machines = tuple(dict.fromkeys(next((m for m in named if tag.endswith(m)), tag) for tag in machines))
    wheel = Wheel(path, found["name"].lower().replace("_", "-"), found["version"], machines)
    if len(wheel.member) > NAME_BYTES_MAX:
        expected = f"{NAME_BYTES_MAX - len(FOLDER) - 1} characters"
        raise UsageError(f"the name of {path.name} is too long", expected=expected)
    return wheel


def find_wheels(own: Optional[Path], folder: Optional[Path], target: Target) -> list[Wheel]:
    """motedge's own wheel and those of a folder.

    Args:
        own: motedge's wheel; None: without.
        folder: of wheels of what motedge needs; None: without.
        target: the device.

    Raises:
        UsageError: a folder without wheels, a file that is none, or a wheel for other machines than the target.
    """
    found: list[Wheel] = []
    if folder is not None:
        # A wheel of motedge's in the folder gives way to the one that was named
        others = [parse_wheel(path) for path in sorted(folder.glob("*.whl"))]
        found = [wheel for wheel in others if own is None or wheel.name != "motedge"]
        if not found:
            raise UsageError(f"there are no wheels in {folder}", fix="pip download -d FOLDER: docs/jetson.md says how")
    if own is not None:
        wheel = parse_wheel(own)
        if wheel.name != "motedge":
            raise UsageError(f"{own} is not a wheel of motedge", fix="--wheels FOLDER for other packages")
        found.append(wheel)
    wanted = _MACHINES.get(target.kind)
    for wheel in found:
        if wanted is not None and wheel.machines and wanted not in wheel.machines:
            raise UsageError(
                f"{wheel.path.name} is for another machine",
                expected=f"{wanted}, which {target.name} is, or any",
                got=", ".join(wheel.machines),
                fix=f"pip download --platform manylinux_2_28_{wanted} --only-binary=:all:",
            )
    return sorted(found, key=lambda wheel: wheel.path.name)


def licence_of(wheel: Wheel) -> str:
    """What a wheel's metadata says of its licence; it holds the text itself."""
    with zipfile.ZipFile(wheel.path) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        text = archive.read(names[0]).decode("utf-8", errors="replace") if names else ""
    metadata = Parser().parsestr(text, headersonly=True)
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    short = str(metadata.get("License", "")).strip()
    plain = short if short and "\n" not in short and len(short) < 80 else ""
    return str(metadata.get("License-Expression") or plain or ", ".join(classifiers) or "see the wheel")


def checkout() -> Optional[Path]:
    """The source folder that this motedge runs from; None where it is installed as a package."""
    root = Path(motedge.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "targets").is_dir() else None


def build_wheel(source: Path, folder: Path) -> Path:
    """Builds motedge's wheel from its source folder; the same source gives the same bytes.

    Raises:
        HostError: pip failed; says with what.
    """
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    if _has_backend():
        # Without a network too
        command.append("--no-build-isolation")
    copy = folder / "source"
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in _SOURCES:
        if (source / name).is_dir():
            # The links in src/ and motedge/ stay links, as in the checkout
            shutil.copytree(source / name, copy / name, symlinks=True, ignore=left_out)
        elif (source / name).is_file():
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
    command.append(str(copy))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wheels = sorted(folder.glob("motedge-*.whl"))
    if done.returncode != 0 or not wheels:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise HostError(
            "motedge's wheel could not be built",
            got=lines[-1] if lines else f"pip's exit code {done.returncode}",
            fix="build it yourself and give it with --wheel FILE; or --no-wheel, for a device that has motedge",
        )
    return wheels[0]


def _has_backend() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= _SETUPTOOLS_LEAST
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
