"""Reads a ring, whole or torn, while it is written or after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from motedge.errors import DataError
from motedge.files import PathLike
from motedge.runtime.recorder.segment import Damage, Record, read_segment, segments


class RingReader:
    """The records of a folder, the oldest first. `damage` and `lost` are known once all were read."""

    def __init__(self, folder: PathLike) -> None:
        """DataError where there is no ring."""
        self._root = Path(folder)
        if not segments(self._root):
            raise DataError(
                f"there is no recording in {folder}",
                expected="files named ring-00000001.seg and so on",
                fix="motedge run BUNDLE --observation DIR --recorder DIR makes one",
            )
        self.damage: list[Damage] = []
        # Records that are missing between the first and the last
        self.lost = 0

    def __iter__(self) -> Iterator[Record]:
        self.damage, self.lost = [], 0
        expected = None
        for _, path in segments(self._root):
            try:
                for record in read_segment(path, self.damage):
                    if expected is not None and record.sequence > expected:
                        self.lost += record.sequence - expected
                    expected = record.sequence + 1
                    yield record
            except FileNotFoundError:
                # The writer has gone round meanwhile
                continue
