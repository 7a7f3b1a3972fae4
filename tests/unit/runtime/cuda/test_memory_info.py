"""Free memory of a GPU that has its own, and of one that shares the machine's."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from motedge.runtime.cuda import provided
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.cuda.interface import DeviceFacts
from motedge.runtime.cuda.provided import ProvidedCuda


class _Raw:
    """A driver that says 100 of 1000 bytes are free, and gives none."""

    name, has_priorities = "made", False

    def __init__(self, integrated: bool) -> None:
        self.facts = DeviceFacts(0, "made", "8.7", 1000, integrated, (12, 6))

    def memory_info(self) -> tuple[int, int]:
        return 100, 1000

    def allocate(self, nbytes: int) -> Any:
        raise OutOfDeviceMemoryError("no room")

    def push(self) -> None:
        pass

    pop = release = push


@pytest.mark.parametrize(
    ("integrated", "available", "free"),
    [(False, 700, 100), (True, 700, 700), (True, 50, 100), (True, None, 100)],
)
def test_the_page_cache_is_free_where_memory_is_shared(
    monkeypatch: pytest.MonkeyPatch, integrated: bool, available: Optional[int], free: int
) -> None:
    monkeypatch.setattr(provided, "available_memory", lambda: available)
    cuda = ProvidedCuda(_Raw(integrated))
    assert cuda.memory_info() == (free, 1000)
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        cuda.allocate(800, "a buffer")
    assert caught.value.got == f"{free} of 1,000 bytes free"
    cuda.close()
