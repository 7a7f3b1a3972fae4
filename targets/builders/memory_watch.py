"""How much memory another process takes, from the kernel's own account."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass
class MemoryPeak:
    """Highest values seen, bytes."""

    # Resident set, pages of mapped files included. The kernel keeps its peak, so that none is missed
    resident: int = 0
    # Memory of its own: what the system can't take back. None where the kernel does not say
    anonymous: Optional[int] = None

    def watch(self, process: int, root: Path = Path("/proc")) -> None:
        """Looks at a process once; does nothing when it is gone or this is no Linux."""
        try:
            text = (root / str(process) / "status").read_text(encoding="utf-8")
        except OSError:
            return
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in ("VmHWM", "RssAnon"):
                size = int(value.split()[0]) * 1024
                if name == "VmHWM":
                    self.resident = max(self.resident, size)
                else:
                    self.anonymous = max(self.anonymous or 0, size)
