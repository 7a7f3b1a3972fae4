"""How much of the machine's memory can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Optional


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> Optional[int]:
    """Bytes that can be had without swapping, the page cache's among them; None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
