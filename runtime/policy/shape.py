"""The shape of a policy's request, as the bundle's graphs were made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import BundleError


@dataclass(frozen=True)
class PolicyShape:
    """The request that the graphs were made for; rows, columns in pixels."""

    canvas: tuple[int, int]
    content: tuple[int, int]
    # Pixel frames of the clip, the current one included
    frames: int
    # Latent frames, rows, columns
    latent: tuple[int, int, int]
    # State row, if there is one, and actions
    rows: int
    # Frames and actions a second
    fps: float
    # Rows of state before the actions: 1 or 0
    state_rows: int = 1

    @property
    def actions(self) -> int:
        """Actions of a chunk."""
        return self.rows - self.state_rows

    @classmethod
    def from_manifest(cls, shape_set: Mapping[str, Any], policy: Mapping[str, Any], state_rows: int = 1) -> PolicyShape:
        """From a manifest's `shape_set` and `policy`; `state_rows` as of the embodiment's protocol.

        Raises:
            BundleError: a field is missing, or the two disagree.
        """
        try:
            frames, height, width = (int(n) for n in shape_set["latent"])
            canvas_rows, canvas_columns = (int(n) for n in shape_set["canvas"])
            content_rows, content_columns = (int(n) for n in shape_set["content"])
            shape = cls(
                canvas=(canvas_rows, canvas_columns),
                content=(content_rows, content_columns),
                frames=int(shape_set["frames"]),
                latent=(frames, height, width),
                rows=int(policy["chunk"]) + state_rows,
                fps=float(policy["fps"]),
                state_rows=state_rows,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("manifest.json has no usable policy", got=repr(error), fix="export again") from error
        if shape.frames != shape.actions + 1:
            raise BundleError(
                "manifest.json: the policy's chunk does not fit its clip",
                expected=f"one action a frame: chunk {shape.frames - 1}",
                got=shape.actions,
                fix="export again with a shape set whose frames are the chunk and one more",
            )
        return shape
