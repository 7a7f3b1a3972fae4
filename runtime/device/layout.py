"""How the denoised state lies in device memory: vision, action, sound, each from an address that engines take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from motedge.runtime.cuda.interface import ALIGNMENT_BYTES

# Of fp32
ALIGNMENT_ELEMENTS = ALIGNMENT_BYTES // 4


@dataclass(frozen=True)
class StateLayout:
    """A flat fp32 vector [vision | gap | action | gap | sound | gap]; action and sound may be empty.

    Gaps are zero. Velocities and clean values lie the same way.
    """

    # C, T, h, w
    vision_shape: tuple[int, int, int, int]
    # A, Z
    action_shape: tuple[int, int]
    # Q, J
    sound_shape: tuple[int, int] = (0, 0)

    @property
    def vision_count(self) -> int:
        """Elements of the vision latent."""
        return math.prod(self.vision_shape)

    @property
    def action_count(self) -> int:
        """Elements of the action rows."""
        return math.prod(self.action_shape)

    @property
    def sound_count(self) -> int:
        """Elements of the sound latents."""
        return math.prod(self.sound_shape)

    @property
    def action_offset(self) -> int:
        """Element at which the action rows start."""
        return _aligned(self.vision_count)

    @property
    def sound_offset(self) -> int:
        """Element at which the sound latents start."""
        return self.action_offset + _aligned(self.action_count)

    @property
    def size(self) -> int:
        """Elements in all, gaps included."""
        return self.sound_offset + _aligned(self.sound_count)

    @property
    def nbytes(self) -> int:
        """Bytes of one such vector."""
        return 4 * self.size

    @property
    def spans(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first element and elements of each modality that is not empty."""
        every = (
            ("vision", 0, self.vision_count),
            ("action", self.action_offset, self.action_count),
            ("sound", self.sound_offset, self.sound_count),
        )
        return tuple(span for span in every if span[2])

    def offset_bytes(self, modality: str) -> int:
        """Bytes before "vision", "action" or "sound"."""
        return 4 * {"vision": 0, "action": self.action_offset, "sound": self.sound_offset}[modality]

    @property
    def noise_count(self) -> int:
        """Numbers to draw: all modalities start the same stream, so the longest one's are enough."""
        return max(self.vision_count, self.action_count, self.sound_count)


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
