"""What this process takes of the host's memory, as Linux tells."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from motedge.doctor.host import read_text


def resident_bytes(status: Path = Path("/proc/self/status")) -> tuple[Optional[int], Optional[int]]:
    """Now, and at its most; None where the system does not say."""
    found: dict[str, int] = {}
    for line in (read_text(status) or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name in ("VmRSS", "VmHWM") and words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found.get("VmRSS"), found.get("VmHWM")
