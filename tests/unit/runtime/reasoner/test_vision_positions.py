"""Learned positions and rotary angles of the vision encoders against transformers'."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import BundleError
from motedge.runtime.reasoner.patches import Grid
from motedge.runtime.reasoner.vision_positions import (
    qwen3_vl_positions,
    siglip2_positions,
    vision_frequencies,
    vision_rotary,
)

GRIDS = [Grid(1, 16, 16), Grid(3, 8, 6), Grid(1, 2, 40), Grid(2, 34, 46), Grid(1, 64, 12)]
WIDTH, SIDE, HEAD_DIM = 24, 16, 72


@pytest.fixture
def learned() -> np.ndarray:
    return np.random.RandomState(0).standard_normal((SIDE * SIDE, WIDTH)).astype(np.float32)


def _framed(table: np.ndarray, grid: Grid) -> np.ndarray:
    """Every frame has the same positions."""
    return np.tile(table, (grid.frames, 1))


@pytest.mark.parametrize("grid", GRIDS)
def test_siglip2(grid: Grid, learned: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.cosmos3_edge.modeling_cosmos3_edge")
    theirs = modeling.Cosmos3EdgeVisionEmbeddings.resize_positional_embeddings(
        torch.from_numpy(learned).reshape(SIDE, SIDE, WIDTH), torch.tensor([[grid.frames, grid.rows, grid.columns]]), 2
    )
    assert np.abs(_framed(siglip2_positions(learned, grid, 2), grid) - theirs.numpy()).max() <= 2e-6


@pytest.mark.parametrize("grid", GRIDS)
def test_qwen3_vl(grid: Grid, learned: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("transformers.vision_utils")
    index, weight = oracle.get_vision_interpolation_indices_and_weights(
        torch.tensor([[grid.frames, grid.rows, grid.columns]]), SIDE, align_corners=True, spatial_merge_size=2
    )
    theirs = (torch.from_numpy(learned)[index] * weight[:, :, None]).sum(1)
    assert np.abs(_framed(qwen3_vl_positions(learned, grid, 2), grid) - theirs.numpy()).max() <= 1e-5


@pytest.mark.parametrize("grid", GRIDS)
def test_rotary(grid: Grid) -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("transformers.models.qwen3_vl.modeling_qwen3_vl")
    positions = pytest.importorskip("transformers.vision_utils")
    config = oracle.Qwen3VLVisionConfig(hidden_size=HEAD_DIM * 2, num_heads=2)
    module = oracle.Qwen3VLVisionRotaryEmbedding(config)
    place = positions.get_vision_position_ids(torch.tensor([[grid.frames, grid.rows, grid.columns]]), 2)
    theirs = module(torch.zeros(1), place)
    frequencies = vision_frequencies(HEAD_DIM)
    assert np.abs(frequencies - module.inv_freq.numpy()).max() <= 6e-8
    for ours, full in zip(vision_rotary(frequencies, grid, 2), theirs):
        # Theirs has both halves, which are equal
        assert ours.shape == (grid.rows * grid.columns, HEAD_DIM // 2)
        assert np.abs(_framed(np.tile(ours, 2), grid) - full.numpy()).max() <= 5e-6


def test_positions_that_make_no_square() -> None:
    with pytest.raises(BundleError, match="square"):
        siglip2_positions(np.zeros((10, 4), np.float32), GRIDS[0], 2)
