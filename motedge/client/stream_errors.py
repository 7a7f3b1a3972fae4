"""What a stream of chunks raises in the robot's loop."""

from __future__ import annotations

from motedge.errors import MotedgeError


class ChunkGapError(MotedgeError):
    """There is no action for this moment."""


class ChunkSourceError(MotedgeError):
    """The source of chunks failed, or answered with something that is no chunk. Raised once for each failure."""
