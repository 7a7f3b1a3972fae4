"""The graph that is refitted on a GPU (tests/device): its files are what its source says, and compute what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import refit_graph

from motedge.targets.refit.agreement import structure


@pytest.mark.parametrize("name", refit_graph.SETS)
def test_the_files_are_as_written(name: str, tmp_path: Path) -> None:
    assert refit_graph.path(name).read_bytes() == refit_graph.write_graph(name, tmp_path / "made.onnx").read_bytes()


@pytest.mark.parametrize("name", refit_graph.SETS)
def test_the_reference(name: str) -> None:
    session = onnxruntime.InferenceSession(str(refit_graph.path(name)), providers=["CPUExecutionProvider"])
    for rows in refit_graph.ROWS:
        x = refit_graph.inputs(rows)
        expected = refit_graph.reference(refit_graph.weights(name), x)
        got = session.run(None, {"x": x})[0]
        assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 2e-3


def test_the_two_sets_differ_in_weights_alone() -> None:
    assert structure(refit_graph.path("old")) == structure(refit_graph.path("new"))
    x = refit_graph.inputs(5)
    old, new = (refit_graph.reference(refit_graph.weights(name), x) for name in refit_graph.SETS)
    assert np.linalg.norm(old - new) > 0.5 * np.linalg.norm(new)


def test_each_weight_matters() -> None:
    """So that one that a refit forgets is seen."""
    new, old, x = refit_graph.weights("new"), refit_graph.weights("old"), refit_graph.inputs(5)
    expected = refit_graph.reference(new, x)
    for name in new:
        got = refit_graph.reference({**new, name: old[name]}, x)
        assert np.linalg.norm(got - expected) > 0.05 * np.linalg.norm(expected), name


def test_the_new_weights_need_their_scale() -> None:
    new, old, limit = refit_graph.weights("new"), refit_graph.weights("old"), np.finfo(np.float16).max
    x = refit_graph.inputs(16)
    assert refit_graph.squares(new, x).max() < limit
    assert refit_graph.squares({**new, refit_graph.SCALE: old[refit_graph.SCALE]}, x).max() > limit
