"""Install scripts of an archive, one a generation of system software, from templates/install.sh.in."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import motedge
from motedge.errors import InternalError
from motedge.runtime.backends.tensorrt.versions import parse_version
from motedge.targets.catalog import SoftwareRow, Target

_PLACE = re.compile(r"@([A-Z0-9_]+)@")
_JETPACK = re.compile(r"JetPack (\d+)\.")
# engine -> name of the library, Python module, how to get it
_LIBRARIES = {
    "tensorrt": ("TensorRT", "tensorrt", "sudo apt install python3-libnvinfer   (part of nvidia-jetpack)"),
    "tensorrt-rtx": ("TensorRT-RTX", "tensorrt_rtx", "pip install tensorrt-rtx-cu13"),
    "onnxruntime": ("onnxruntime", "", ""),
}
_MACHINES = {"jetson": "aarch64", "drive": "aarch64", "spark": "aarch64", "rtx": "x86_64", "datacenter": "x86_64"}
# Twice what the virtual environment takes: 0.25 GB with numpy 2.2, onnxruntime 1.23 and tokenizers 0.23 (x86_64)
_VENV_BYTES = 500_000_000


@dataclass(frozen=True)
class ScriptFacts:
    """What a script says and checks beside its releases."""

    name: str
    # Bytes of the unpacked bundle, and of what is built
    bundle_bytes: int
    engine_bytes: int
    # File name of motedge's wheel; "" without
    wheel: str
    # Begin of the wheel's sha256: a changed program gets an environment of its own
    wheel_digest: str
    # Whether what motedge needs is in the archive too
    offline: bool


def install_scripts(target: Target, releases: Sequence[SoftwareRow], facts: ScriptFacts) -> Mapping[str, str]:
    """File name -> text: install-jetpack6.sh and install-jetpack7.sh on Jetson, install.sh elsewhere."""
    groups: dict[str, list[SoftwareRow]] = {}
    for row in releases:
        jetpack = _JETPACK.match(row.release)
        name = f"install-jetpack{jetpack.group(1)}.sh" if jetpack else "install.sh"
        groups.setdefault(name, []).append(row)
    template = (importlib.resources.files("motedge.targets.pack") / "templates" / "install.sh.in").read_text("utf-8")
    return {name: fill(template, _values(name, target, rows, facts)) for name, rows in groups.items()}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts values into @PLACES@; what stands in a script between double quotes must not be able to leave them."""
    for name, value in values.items():
        if re.search(r'["$`\\\n]', value):
            raise InternalError(f"the value of {name} would not stay within quotes: {value!r}")
    places = set(_PLACE.findall(template))
    if places != set(values):
        raise InternalError(f"places and values of the script differ: {sorted(places ^ set(values))}")
    return _PLACE.sub(lambda found: values[found.group(1)], template)


def _values(script: str, target: Target, rows: Sequence[SoftwareRow], facts: ScriptFacts) -> dict[str, str]:
    library, module, package = _LIBRARIES[target.engine]
    if target.kind == "drive":
        package = "install the TensorRT package of DriveOS with its Python bindings"
    versions = [version for row in rows for version in _versions(row, target) if version]
    ordered = sorted({parse_version(version)[:2] for version in versions})
    needed = facts.bundle_bytes + facts.engine_bytes + _VENV_BYTES
    return {
        "SCRIPT": script,
        "NAME": facts.name,
        "DEVICE": _plain(target.name),
        "TARGET": target.id,
        "SYSTEM": _plain(" or ".join(row.release for row in rows)),
        "MOTEDGE": motedge.__version__,
        "LIBRARY": library,
        "MACHINE": _MACHINES.get(target.kind, ""),
        "MODULE": module if ordered else "",
        "MODULE_PACKAGE": package,
        "MODULE_LEAST": ".".join(map(str, ordered[0])) if ordered else "",
        "MODULE_MAJOR": str(ordered[-1][0]) if ordered else "",
        "PYTHONS": " ".join(dict.fromkeys(row.python for row in rows if row.python)),
        "L4T_RELEASES": " ".join(dict.fromkeys(".".join(row.l4t.split(".")[:2]) for row in rows if row.l4t)),
        "NEEDED_KB": str(-(-needed // 1024)),
        "WHEEL": facts.wheel,
        "VENV": f"{motedge.__version__}-{facts.wheel_digest}",
        "OFFLINE": "yes" if facts.offline else "",
        # The runtime opens onnxruntime's graphs as they are
        "BUILD": "" if target.engine == "onnxruntime" else "yes",
    }


def _versions(row: SoftwareRow, target: Target) -> list[str]:
    found = [row.tensorrt_rtx] if target.engine == "tensorrt-rtx" else [row.tensorrt, *row.accepts]
    return [version for version in found if version is not None]


def _plain(text: str) -> str:
    return re.sub(r'["$`\\\n]', " ", text)
