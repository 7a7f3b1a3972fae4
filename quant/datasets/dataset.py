"""What calibration needs of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from motedge.files import sha256_file
from motedge.runtime.policy.observation import Observation


@dataclass(frozen=True, order=True)
class Moment:
    """One observation of a data set."""

    # What lies close together in time: an episode or a session; "" where there is only one
    group: str
    # Place in time within the group
    index: int


class Dataset(Protocol):
    """Observations by moment. Reading one gives the same every time."""

    @property
    def name(self) -> str:
        """For people: the folder's name."""
        ...

    @property
    def kind(self) -> str:
        """ "lerobot v3", "lerobot v2.1", "images", "requests" or "recording"."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Gaps and repairs, in words."""
        ...

    def moments(self) -> list[Moment]:
        """Every observation there is, in order."""
        ...

    def observation(self, moment: Moment) -> Observation:
        """Reads one; DataError or ObservationError where it is damaged."""
        ...

    def fingerprint(self) -> str:
        """Hex sha256 over the content of what is read, so that a changed data set is noticed."""
        ...


def fingerprint_files(root: Path, files: Iterable[Path], *said: str) -> str:
    """Hex sha256 over names and contents of files below `root`, and what else decides the observations."""
    digest = hashlib.sha256("\0".join(said).encode())
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
