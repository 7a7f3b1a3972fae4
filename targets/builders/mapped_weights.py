"""Gives back the pages of weight files that a builder has read, while it builds.

TensorRT from 10.13 on, and TensorRT-RTX, map external data and copy each weight once into memory of their own. The
pages they have read stay mapped until the network goes: 2.9 GB of the 6.5 GB peak of Edge's generator, on top of the
copy. They can be had again from the file at any time, so they are unmapped as the build goes on.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Optional

# linux/mman.h. For a mapping that was never writable it drops page table entries and nothing else: madvise(2)
_MADV_DONTNEED = 4
_PERIOD_S = 0.05
_LEAST_BYTES = 1 << 20


class MappedWeights:
    """While entered, keeps the resident part of mapped files small.

    The mappings are listed once, when it is entered, and must outlive it: the network that holds them is freed later.
    """

    def __init__(self, folder: Path, maps: Path = Path("/proc/self/maps")) -> None:
        """`folder`: whose files are meant, with those below it."""
        self._ranges = find_mappings(folder, maps) if sys.platform == "linux" else []
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    @property
    def bytes(self) -> int:
        """Size of what is mapped."""
        return sum(end - start for start, end in self._ranges)

    def __enter__(self) -> MappedWeights:
        if self._ranges:
            self._thread = threading.Thread(target=self._run, name="mapped-weights", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            release(self._ranges)


def release(ranges: Iterable[tuple[int, int]]) -> None:
    """Unmaps the resident pages of read-only mappings of files, given as (start, end) addresses."""
    libc = ctypes.CDLL(None)
    for start, end in ranges:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def find_mappings(folder: Path, maps: Path = Path("/proc/self/maps")) -> list[tuple[int, int]]:
    """Address ranges of this process's mappings of files below `folder`, read-only and of 1 MiB or more."""
    inside, found = f"{folder.resolve()}/", []
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        # Address, permissions, offset, device, inode, path. A writable one could hold changes that exist nowhere else
        if len(fields) == 6 and fields[1].startswith("r--") and fields[5].startswith(inside):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            if end - start >= _LEAST_BYTES:
                found.append((start, end))
    return found
