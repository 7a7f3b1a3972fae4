"""How the denoised state lies in device memory: vision, then action, each from an address that engines take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from motedge.runtime.cuda.interface import ALIGNMENT_BYTES

# Of fp32
ALIGNMENT_ELEMENTS = ALIGNMENT_BYTES // 4


@dataclass(frozen=True)
class StateLayout:
    """A flat fp32 vector [vision | gap | action | gap]. Gaps are zero. Velocities and clean values lie the same way."""

    # C, T, h, w
    vision_shape: tuple[int, int, int, int]
    # A, Z
    action_shape: tuple[int, int]

    @property
    def vision_count(self) -> int:
        """Elements of the vision latent."""
        return math.prod(self.vision_shape)

    @property
    def action_count(self) -> int:
        """Elements of the action rows."""
        return math.prod(self.action_shape)

    @property
    def action_offset(self) -> int:
        """Element at which the action rows start."""
        return _aligned(self.vision_count)

    @property
    def size(self) -> int:
        """Elements in all, gaps included."""
        return self.action_offset + _aligned(self.action_count)

    @property
    def nbytes(self) -> int:
        """Bytes of one such vector."""
        return 4 * self.size

    @property
    def action_offset_bytes(self) -> int:
        """Bytes before the action rows."""
        return 4 * self.action_offset

    @property
    def noise_count(self) -> int:
        """Numbers to draw: both modalities start the same stream, so the longer one's are enough."""
        return max(self.vision_count, self.action_count)


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
