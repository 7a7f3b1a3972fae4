"""At which sizes graphs are read for a plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from motedge.bundle import Contract
from motedge.errors import BundleError
from motedge.targets.plan import figures
from motedge.targets.plan.figures import GraphFigures

CONTRACTS = {
    "und": Contract("und", (), (), {}, {"S": (1, 1, 4096), "P": (2, 2048, 16384)}),
    "und_prefill": Contract("und_prefill", (), (), {}, {"S": (2, 160, 512)}),
}


@pytest.mark.parametrize(
    ("graph", "host", "sizes"),
    [
        ("und", True, {"S": 512, "P": 16384}),
        ("und", False, {"S": 512, "P": 2048}),
        ("und_prefill", True, {"S": 512}),
    ],
)
def test_memory_is_that_of_what_is_asked_for(
    graph: str, host: bool, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def read(_: Any, name: str, variant: str, wanted: dict[str, int]) -> None:
        asked.append((name, variant, wanted))
        raise BundleError("read no further")

    monkeypatch.setattr(figures, "read_graph", read)
    bundle: Any = SimpleNamespace(contract=CONTRACTS.__getitem__)
    with pytest.raises(BundleError, match="read no further"):
        GraphFigures(bundle).sizes(graph, "primitive-fp32", None, host=host)
    assert asked == [(graph, "primitive-fp32", sizes)]
