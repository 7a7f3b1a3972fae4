"""Order of the test suite, slow tests last, so that a quick failure shows quickly; what no test may leave behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    """A worker of a search runs in this process in some tests, and takes one thread: torch then sums in another order,
    and bytes that are compared with an earlier export's differ."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else None
    yield
    if torch is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)
