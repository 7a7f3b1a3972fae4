"""Processor, memory and disk of this machine, from the files of the Linux kernel where there are any."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.files import nearest_existing

# Names in /proc/cpuinfo of the instructions that decide onnxruntime's speed: Intel and AMD, then Arm
CPU_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


@dataclass(frozen=True)
class Host:
    """What the machine is."""

    system: str
    architecture: str
    cpu: str
    # Cores of the machine, and those that this process may use
    cores: int
    usable_cores: int
    cpu_flags: tuple[str, ...]
    # None where the system does not say
    memory_bytes: Optional[int]
    memory_available_bytes: Optional[int]
    # Limit of the control group (container), None without one
    memory_limit_bytes: Optional[int]
    disk_free_bytes: int
    disk_path: str

    @property
    def usable_memory_bytes(self) -> Optional[int]:
        """What a process here can have at most: the machine's memory or its container's limit."""
        known = [b for b in (self.memory_bytes, self.memory_limit_bytes) if b is not None]
        return min(known) if known else None


def examine_host(folder: Path, root: Path = Path("/")) -> Host:
    """Reads the machine; `folder` is where the disk is measured, `root` the file system (another one in tests)."""
    cpuinfo = _pairs(root / "proc/cpuinfo")
    memory = _pairs(root / "proc/meminfo")
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    place = nearest_existing(folder)
    return Host(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        cpu=cpuinfo.get("model name") or _arm_part(cpuinfo) or platform.processor() or "unknown",
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_flags=tuple(flag for flag in CPU_FLAGS if flag in flags),
        memory_bytes=_kib(memory.get("MemTotal")),
        memory_available_bytes=_kib(memory.get("MemAvailable")),
        memory_limit_bytes=_memory_limit(root),
        disk_free_bytes=shutil.disk_usage(place).free,
        disk_path=str(place),
    )


def read_text(path: Path) -> Optional[str]:
    """A small file of the kernel as text, None where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\x00\n")
    except OSError:
        return None


def _pairs(path: Path) -> dict[str, str]:
    """`key : value` lines; of a repeated key (one block a core) the first."""
    pairs: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            pairs.setdefault(key.strip(), value.strip())
    return pairs


def _arm_part(cpuinfo: dict[str, str]) -> Optional[str]:
    # Arm kernels give no name. Parts from linux/arch/arm64/include/asm/cputype.h: Orin, Thor
    names = {("0x41", "0xd42"): "Cortex-A78AE", ("0x41", "0xd83"): "Neoverse-V3AE"}
    key = (cpuinfo.get("CPU implementer", ""), cpuinfo.get("CPU part", ""))
    return names.get(key) or (f"Arm {key[0]} part {key[1]}" if all(key) else None)


def _kib(text: Optional[str]) -> Optional[int]:
    number = (text or "").split(" ")[0]
    return int(number) * 1024 if number.isdigit() else None


def _memory_limit(root: Path) -> Optional[int]:
    # cgroup v2, then v1; "max" and v1's huge number both mean no limit
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read_text(root / name)
        if text is not None and text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
