"""What a machine shows of itself: device tree, nvidia-smi, memory, Jetson Linux release, power mode. Starts no CUDA."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.doctor.accelerators import Gpu, gpus, jetson
from motedge.doctor.host import examine_host, read_text
from motedge.doctor.packages import engine_libraries
from motedge.doctor.program import ask

_TIMEOUT_S = 10.0
# Part numbers of modules and boards: p3701 AGX Orin, p3767 Orin NX and Nano, p3834 Jetson Thor, p3960 DRIVE AGX Thor
_PART = re.compile(r"p(?:3701|3767|3834|3960)-\d{4}")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)")
_MODE_ID = re.compile(r"pmode:0*(\d+)")
_MODE_NAME = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")


@dataclass(frozen=True)
class Clues:
    """Everything that was found; None or empty where there is nothing."""

    # The device tree's name of the board
    model: Optional[str]
    # Part numbers of modules in the device tree
    parts: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    # The kernel's MemTotal and MemAvailable
    memory_bytes: Optional[int]
    memory_available_bytes: Optional[int]
    # Release of Jetson Linux, "36.4.3"
    l4t: Optional[str]
    power_mode: Optional[str]
    # Versions of tensorrt and tensorrt_rtx that this Python has
    libraries: tuple[tuple[str, str], ...]
    cpu: str
    # What was asked and did not answer, a sentence each
    problems: tuple[str, ...]


def gather(root: Path = Path("/")) -> Clues:
    """Looks at the machine; `root` is the file system (another one in tests), tools are found through PATH."""
    problems: list[str] = []
    compatible = read_text(root / "proc/device-tree/compatible") or ""
    model = read_text(root / "proc/device-tree/model")
    board = jetson(root)
    is_jetson = board is not None or "tegra" in compatible
    host = examine_host(root, root)
    libraries = engine_libraries()
    return Clues(
        model=model,
        parts=tuple(dict.fromkeys(_PART.findall(compatible))),
        gpus=tuple(_gpus(problems)),
        memory_bytes=host.memory_bytes,
        memory_available_bytes=host.memory_available_bytes,
        l4t=board.l4t if board is not None else None,
        power_mode=_power_mode(root, problems) if is_jetson else None,
        libraries=tuple((name, version) for name, version in libraries.items() if version is not None),
        cpu=host.cpu,
        problems=tuple(problems),
    )


def _gpus(problems: list[str]) -> list[Gpu]:
    if shutil.which("nvidia-smi") is None:
        # Nothing to report: CPUs, and Jetsons before JetPack 6, have none
        return []
    found, reason = gpus()
    if reason is not None:
        problems.append(reason)
    return found


def _power_mode(root: Path, problems: list[str]) -> Optional[str]:
    """The mode's name, from `nvpmodel -q`, or from what nvpmodel wrote where it can't be asked."""
    tool = shutil.which("nvpmodel")
    if tool is not None:
        try:
            found = _MODE.search(ask([tool, "-q"], _TIMEOUT_S))
            if found is not None:
                return found.group(1)
            problems.append("nvpmodel -q named no power mode")
        except OSError as error:
            problems.append(str(error))
    number = _MODE_ID.search(read_text(root / "var/lib/nvpmodel/status") or "")
    names = dict(_MODE_NAME.findall(read_text(root / "etc/nvpmodel.conf") or ""))
    return names.get(number.group(1)) if number is not None else None
