"""Positions of prompts with images and video against transformers' get_rope_index."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import ContractError
from motedge.runtime.reasoner.mrope import prompt_positions
from motedge.runtime.reasoner.patches import Grid

TEXT, IMAGE, VIDEO = 1, 7, 8
TOKENS = {"image_token": IMAGE, "video_token": VIDEO, "merge": 2}
MODELS = (
    ("cosmos3_edge.modeling_cosmos3_edge", "Cosmos3EdgeModel"),
    ("qwen3_vl.modeling_qwen3_vl", "Qwen3VLModel"),
)
side = st.integers(1, 9)
piece = st.tuples(st.sampled_from(["text", "image", "video"]), side, side, st.integers(1, 3))


def _prompt(pieces: list[tuple[str, int, int, int]]) -> tuple[np.ndarray, list[Grid], list[Grid]]:
    ids, images, videos = [], [], []
    for kind, rows, columns, frames in pieces:
        grid = Grid(frames if kind == "video" else 1, 2 * rows, 2 * columns)
        if kind == "text":
            ids += [TEXT] * rows
            continue
        (images if kind == "image" else videos).append(grid)
        for _ in range(grid.frames):
            # A marker before each, as the templates write it
            ids += [TEXT] + [IMAGE if kind == "image" else VIDEO] * grid.tokens_per_frame(2)
    return np.array(ids, np.int64), images, videos


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model[1])
@given(pieces=st.lists(piece, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_as_transformers(model: tuple[str, str], pieces: list[tuple[str, int, int, int]]) -> None:
    torch = pytest.importorskip("torch")
    oracle = getattr(pytest.importorskip(f"transformers.models.{model[0]}"), model[1])
    ids, images, videos = _prompt(pieces)
    stand_in = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    stand_in.get_vision_position_ids = lambda *a, **k: oracle.get_vision_position_ids(stand_in, *a, **k)
    kinds = torch.from_numpy(np.where(ids == IMAGE, 1, np.where(ids == VIDEO, 2, 0)))[None]
    grids = [torch.tensor([[g.frames, g.rows, g.columns] for g in some]) if some else None for some in (images, videos)]
    theirs, delta = oracle.get_rope_index(stand_in, torch.from_numpy(ids)[None], kinds, *grids)
    ours = prompt_positions(ids, images, videos, **TOKENS)
    assert np.array_equal(ours.prompt, theirs[:, 0].numpy())
    assert ours.delta == int(delta)
    after = ours.generated(len(ids) + 3)
    assert after.shape == (3, 1) and after.dtype == np.float32
    assert (after == len(ids) + 3 + int(delta)).all()


def test_text_alone_counts() -> None:
    ours = prompt_positions(np.full(4, TEXT, np.int64), [], [], **TOKENS)
    assert ours.prompt.tolist() == [[0, 1, 2, 3]] * 3
    assert ours.delta == 0
    assert prompt_positions(np.empty(0, np.int64), [], [], **TOKENS).delta == 0


@pytest.mark.parametrize(
    ("ids", "images"),
    [
        ([TEXT, IMAGE], []),
        ([TEXT, IMAGE], [Grid(1, 4, 2)]),
        ([TEXT], [Grid(1, 2, 2)]),
        ([VIDEO], [Grid(1, 2, 2)]),
    ],
)
def test_placeholders_that_do_not_fit(ids: list[int], images: list[Grid]) -> None:
    with pytest.raises(ContractError, match="placeholders don't fit"):
        prompt_positions(np.array(ids, np.int64), images, [], **TOKENS)
