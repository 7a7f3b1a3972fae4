"""Order of the test suite, slow tests last, so that a quick failure shows quickly; what no test may leave behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from capabilities import Recorder, claims_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--capabilities", metavar="FILE", type=Path, help="add what capability tests show to FILE (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--capabilities")
    if path is None:
        return
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("--capabilities counts in one process: leave -n out")
    config.pluginmanager.register(Recorder(path), "capabilities")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        claims_of(item)
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


@pytest.fixture(autouse=True)
def no_compiled_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout where the kernels were built tests like a fresh one: a simulated GPU can't run what nvcc made."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr("motedge.runtime.kernels.library.package_fatbin", lambda: Path("not here/kernels.fatbin"))
