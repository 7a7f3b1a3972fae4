"""Energy of x86 processors and their memory, from the kernel's powercap files (RAPL; Intel and AMD).

Linux lets root alone read them by default, for they leak what other programs compute (CVE-2020-8694).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from motedge.doctor.host import read_text
from motedge.profile.sensors.sensor import CPU, ENERGY_J, Channel, SensorAbsentError

_NAME = "RAPL"
_CAUSE = "readable by root alone: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj until the next start"


class Rapl:
    """A `Sensor`: one channel a domain, "package-0", "package-0 dram". Counters that start anew are carried on."""

    name, part = _NAME, CPU

    def __init__(self, root: Path = Path("/")) -> None:
        """`root`: the file system, another one in tests."""
        self._root = root
        self._domains: dict[Path, str] = {}
        # Domain -> last reading and what was added for counters that went round, uJ
        self._last: dict[Path, tuple[int, int]] = {}

    def open(self) -> None:
        """See Sensor."""
        folders = sorted((self._root / "sys/class/powercap").glob("intel-rapl:*"))
        if not folders:
            raise SensorAbsentError("the kernel has no RAPL counters here")
        names = {folder.name: read_text(folder / "name") or folder.name for folder in folders}
        for folder in folders:
            parent = names.get(folder.name.rpartition(":")[0])
            name = names[folder.name]
            if _count(folder / "energy_uj") is not None:
                self._domains[folder] = name if parent is None else f"{parent} {name}"
        if not self._domains:
            raise SensorAbsentError(f"RAPL's counters are {_CAUSE}")

    def read(self) -> Mapping[Channel, float]:
        """See Sensor."""
        found: dict[Channel, float] = {}
        for folder, name in self._domains.items():
            count = _count(folder / "energy_uj")
            if count is None:
                continue
            last, added = self._last.get(folder, (count, 0))
            if count < last:
                added += _count(folder / "max_energy_range_uj") or last
            self._last[folder] = count, added
            found[Channel(_NAME, name, ENERGY_J)] = (count + added) / 1e6
        return found

    def facts(self) -> Mapping[str, str]:
        """See Sensor."""
        return {}

    def close(self) -> None:
        """See Sensor."""
        self._domains = {}


def _count(path: Path) -> Optional[int]:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdigit() else None
