"""GPUs and Jetson boards, asked through the driver's own tool and the kernel's files. Starts no CUDA."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.doctor.host import read_text
from motedge.doctor.program import ask

_QUERY = ("name", "driver_version", "memory.total", "compute_cap")
_TIMEOUT_S = 15.0
# First line of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, GCID: ..."
_L4T = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi names it; a field is None where nvidia-smi says '[N/A]' (Jetson)."""

    name: str
    driver: Optional[str]
    memory_mib: Optional[int]
    compute_capability: Optional[str]


@dataclass(frozen=True)
class Jetson:
    """A Jetson module."""

    # Device tree's name of the board
    model: Optional[str]
    # Release of Jetson Linux, "36.4.3"
    l4t: Optional[str]


def gpus() -> tuple[list[Gpu], Optional[str]]:
    """The GPUs, and why none can be named, if so."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "nvidia-smi is not installed"
    command = [tool, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        text = ask(command, _TIMEOUT_S)
    except OSError as error:
        return [], str(error)
    if "\N{REPLACEMENT CHARACTER}" in text:
        return [], "nvidia-smi printed what can't be read"
    return parse_gpus(text), None


def parse_gpus(text: str) -> list[Gpu]:
    """Parses nvidia-smi's CSV, one line a GPU."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        cells = [_known(cell.strip()) for cell in line.split(",")]
        cells += [None] * (len(_QUERY) - len(cells))
        name, driver, memory, capability = cells[: len(_QUERY)]
        mib = int(float(memory)) if memory and re.fullmatch(r"\d+(\.\d+)?", memory) else None
        found.append(Gpu(name or "unknown", driver, mib, capability))
    return found


def jetson(root: Path = Path("/")) -> Optional[Jetson]:
    """The Jetson board and its Jetson Linux release, None on other machines."""
    release = read_text(root / "etc/nv_tegra_release")
    model = read_text(root / "proc/device-tree/model")
    if release is None and (model is None or "jetson" not in model.lower()):
        return None
    found = _L4T.search(release or "")
    return Jetson(model, f"{found.group(1)}.{found.group(2)}" if found else None)


def _known(cell: str) -> Optional[str]:
    return None if cell in ("", "[N/A]", "N/A", "[Not Supported]", "[Unknown Error]") else cell
