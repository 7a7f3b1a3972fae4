"""Positions (time, row, column) of a prompt with images and video, and of the tokens after it.

Qwen3-VL's rule, which Edge shares (spec 4.4; transformers 5.23 `get_rope_index`): text counts on in all three; the
tokens of an image or video frame stand at its start in time, and row and column count from there; text goes on after
the longer side. All numbers are whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.reasoner.patches import Grid


@dataclass(frozen=True)
class PromptPositions:
    """Where the tokens of a prompt are."""

    # int64 [3, n]
    prompt: IntArray
    # Position of a token after the prompt, less its index
    delta: int

    def generated(self, index: int) -> FloatArray:
        """Position of the token with this index, counted from the prompt's first: fp32 [3, 1]."""
        return np.full((3, 1), index + self.delta, np.float32)


def prompt_positions(
    token_ids: IntArray,
    images: Sequence[Grid],
    videos: Sequence[Grid],
    *,
    image_token: int,
    video_token: int,
    merge: int,
) -> PromptPositions:
    """Positions of a prompt.

    Args:
        token_ids: int64 [n], with a placeholder for each visual token.
        images: grid of each image, in order.
        videos: grid of each video, in order; each of its frames is a run of placeholders of its own.
        image_token: placeholder of images.
        video_token: placeholder of videos.
        merge: patches per side of a token.

    Raises:
        ContractError: the placeholders do not fit the images and videos.
    """
    kinds = np.where(token_ids == image_token, 1, np.where(token_ids == video_token, 2, 0))
    ends = [*(np.flatnonzero(np.diff(kinds)) + 1), len(kinds)]
    frames = [Grid(1, grid.rows, grid.columns) for grid in videos for _ in range(grid.frames)]
    waiting = {1: list(reversed(images)), 2: list(reversed(frames))}
    pieces, begin, place = [np.empty((3, 0), np.int64)], 0, 0
    for end in ends if len(kinds) else []:
        count, kind = int(end) - begin, int(kinds[begin])
        if kind:
            grid = waiting[kind].pop() if waiting[kind] else None
            if grid is None or grid.tokens_per_frame(merge) != count:
                raise _mismatch(count, grid.tokens_per_frame(merge) if grid else 0)
            rows, columns = grid.rows // merge, grid.columns // merge
            pieces.append(place + np.indices((1, rows, columns)).reshape(3, -1))
            place += max(rows, columns)
        else:
            pieces.append(np.tile(place + np.arange(count), (3, 1)))
            place += count
        begin = int(end)
    left = sum(grid.tokens_per_frame(merge) for grids in waiting.values() for grid in grids)
    if left:
        raise _mismatch(0, left)
    positions = np.concatenate(pieces, axis=1).astype(np.int64)
    return PromptPositions(positions, int(positions.max(initial=-1)) + 1 - len(kinds))


def _mismatch(got: int, expected: int) -> ContractError:
    return ContractError(
        "the prompt's placeholders don't fit the images and videos",
        expected=f"{expected} in a row",
        got=got,
        fix="leave the placeholder tokens to the chat template",
    )
