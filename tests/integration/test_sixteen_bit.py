"""Every 16-bit variant, bf16 too, with each operator's result rounded as on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from damage import edit_weights, record_again, transformer_file
from onnx_reference import UNIT_ROUNDOFF, run_sample
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.verify import verify_bundle

GRAPH_NAMES = ("und_prefill", "gen_step", "vae_encoder")
# In units of the dtype's roundoff u. A rounding is 0.4 u off on average; the longest path through these graphs rounds
# some 80 times, independently: 80**0.5 * 0.4 u = 3.6 u. Measured are 1.4 to 2.9 u in either type.
ROUNDOFFS = 5


@pytest.mark.parametrize("family", ["edge", "nano"])
@pytest.mark.parametrize("graph", GRAPH_NAMES)
@pytest.mark.parametrize("variant", ["primitive-fp16", "fused-fp16", "fused-bf16"])
def test_error_is_that_of_the_type(family: str, graph: str, variant: str, full_variants: dict[str, Path]) -> None:
    unit = UNIT_ROUNDOFF[variant.rpartition("-")[2]]
    for c in run_sample(full_variants[family], graph, variant):
        assert c.relative_l2 is not None and c.cosine is not None, c
        assert c.relative_l2 <= ROUNDOFFS * unit, c
        assert c.cosine >= 1 - (ROUNDOFFS * unit) ** 2, c


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Edge with up_proj 200 times and down_proj a hundredth as large: its squares exceed fp16."""
    folder = tmp_path_factory.mktemp("large")
    checkpoint = make_checkpoint(folder / "edge", "edge", "policy-droid", "tiny", seed=7)

    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        for name, value in tensors.items():
            if name.endswith("up_proj.weight"):
                value.mul_(200)
            if name.endswith("down_proj.weight"):
                value.mul_(0.01)

    edit_weights(transformer_file(checkpoint), enlarge)
    options = ExportOptions(MINI, parse_variants("primitive-fp16,fused-fp16"), "graphs")
    export_bundle(Checkpoint.open(checkpoint), folder / "bundle", options)
    return folder / "bundle"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["primitive-fp16", "fused-fp16"])
@pytest.mark.parametrize("graph", ["und_prefill", "gen_step"])
def test_squares_beyond_fp16_are_scaled_and_would_overflow(graph: str, variant: str, large: Path) -> None:
    entry = Bundle.open(large).variant(graph, variant)
    assert {known["scale"] for known in entry.facts["relu2_ranges"]} == {2**-4}
    for c in run_sample(large, graph, variant):
        assert c.relative_l2 is not None and c.relative_l2 <= ROUNDOFFS * UNIT_ROUNDOFF["fp16"], c
    sound = (large / entry.file).read_bytes()
    try:
        _without_scale(large, entry.file)
        assert all(c.non_finite > 0 for c in run_sample(large, graph, variant))
    finally:
        (large / entry.file).write_bytes(sound)
        record_again(large, entry.file)


def _without_scale(root: Path, file: str) -> None:
    model = onnx.load(str(root / file), load_external_data=False)
    scales = [t for t in model.graph.initializer if t.name.endswith(("relu2_scale", "relu2_inverse"))]
    assert scales
    for tensor in scales:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(tuple(tensor.dims), np.float16), tensor.name))
    (root / file).write_bytes(model.SerializeToString())
    record_again(root, file)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["primitive-fp16", "fused-fp16"])
def test_onnxruntime_takes_the_scaled_graphs_too(variant: str, large: Path) -> None:
    reports = verify_bundle(Bundle.open(large), variant=variant)
    assert all(report.passed for report in reports if report.none is None)
