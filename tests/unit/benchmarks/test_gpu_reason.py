"""What the reasoner's measurement on a GPU holds its times against."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from motedge.checkpoint.presets import preset

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("family", "parameters"), [("edge", 1_677_721_600), ("nano", 7_568_097_280)])
def test_a_token_reads_every_matrix_of_the_tower(family: str, parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    program = importlib.import_module("gpu_reason")
    model = preset(family, "full").transformer
    shapes = program.products_of(model.to_dict())
    assert sum(math.prod(shape) for shape in shapes) == parameters
