"""What a bundle's graphs take, as far as requests to the generator can differ."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.bundle import Contract
from motedge.errors import BundleError, UsageError
from motedge.runtime.generate.buckets import BUCKETS, IMAGE_BUCKETS, Size, is_bucket, is_image_bucket
from motedge.runtime.generate.fitting import CELL
from motedge.runtime.vae.frame_count import latent_frames, pixel_frames, round_frames

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateShape:
    """Sizes that are fixed, and ranges of those that are not."""

    # Rows and columns that the VAE encoder takes, and the part of them that shows something
    canvas: Size
    content: Size
    # Latent channels, rows and columns
    channels: int
    grid: tuple[int, int]
    # Width of an action row
    width: int
    # Least and most latent frames, action rows and prompt tokens
    latents: tuple[int, int]
    rows: tuple[int, int]
    tokens: tuple[int, int]

    @classmethod
    def of(cls, shape_set: Mapping[str, Any], gen: Contract) -> GenerateShape:
        """From a manifest's shape set and the contract of gen_step.

        Raises:
            BundleError: a field is missing.
        """
        try:
            canvas, content = (_size(shape_set[name]) for name in ("canvas", "content"))
            sizes, profile = gen.sizes, gen.profile
            spans = [(profile[letter][0], profile[letter][2]) for letter in ("T", "A", "U")]
            return cls(canvas, content, sizes["C"], (sizes["h"], sizes["w"]), sizes["Z"], *spans)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("manifest.json has no usable shape set", got=repr(error), fix="export again") from error

    @property
    def size(self) -> Size:
        """Rows and columns of what is generated, in pixels."""
        return self.grid[0] * CELL, self.grid[1] * CELL

    @property
    def most_frames(self) -> int:
        """Pixel frames of the longest video."""
        return pixel_frames(self.latents[1])

    def require_size(self, size: Optional[Size]) -> None:
        """Refuses a size (rows, columns) that the graphs were not made for; warns if no model was trained with theirs.

        Raises:
            UsageError: another size than the bundle's.
        """
        if size is not None and size != self.size:
            known = is_bucket(size)
            sizes = [each for group in (BUCKETS, IMAGE_BUCKETS) for bucket in group.values() for each in bucket]
            buckets = ", ".join(f"{columns}x{rows}" for rows, columns in sizes)
            raise UsageError(
                "the bundle generates another size",
                expected=f"{self.size[1]}x{self.size[0]}",
                got=f"{size[1]}x{size[0]}",
                why="rows and columns are fixed in a graph"
                + ("" if known else f"; models were trained with {buckets} alone"),
                fix=f"export with --shape-set media-{size[1]}x{size[0]}" if known else "take one of these sizes",
            )
        if not is_bucket(self.canvas):
            _log.warning("no published model was trained with a canvas of %dx%d", self.canvas[1], self.canvas[0])

    def fit_frames(self, frames: Optional[int], default: int) -> int:
        """The number of pixel frames of a request, rounded down to 4 k + 1, which is said aloud.

        Raises:
            UsageError: more or fewer than the graphs take.
        """
        if frames is None:
            frames = min(default, self.most_frames)
            if frames < default:
                _log.warning("%d frames are made: the bundle takes no more (the mode's default is %d)", frames, default)
        made = round_frames(frames)
        if not self.latents[0] <= latent_frames(made) <= self.latents[1]:
            raise UsageError(
                "the bundle was exported for another number of frames",
                expected=f"{pixel_frames(self.latents[0])} to {self.most_frames}",
                got=made,
                fix="export with a shape set such as media-832x480, which goes from an image to 189 frames",
            )
        if made > 1 and is_image_bucket(self.canvas):
            _log.warning("models were trained with images of %dx%d, and no videos", self.canvas[1], self.canvas[0])
        return made

    def require_rows(self, rows: int) -> None:
        """UsageError unless the graphs take that many action rows."""
        if self.rows[0] <= rows <= self.rows[1]:
            return
        raise UsageError(
            "the bundle's graphs take no request without actions" if not rows else "too many or too few action rows",
            expected=f"{self.rows[0]} to {self.rows[1]} action rows",
            got=rows,
            fix="export with a shape set such as media-832x480, or with min_actions = 0 in a .toml one"
            if not rows
            else "take fewer frames, or export with a shape set with more max_actions",
        )


def _size(value: Any) -> Size:
    rows, columns = (int(side) for side in value)
    return rows, columns
