"""What the two vision encoders want of an image: sizes, value range, order of the values in a patch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import BundleError, UsageError


@dataclass(frozen=True)
class VisionSettings:
    """Preprocessing of one family. Sources: transformers 5.23 `cosmos3_edge`, `qwen3_vl`; the published processors."""

    # Pixels per side of a patch
    patch: int = 16
    # Patches per side that become one token
    merge: int = 2
    # Frames per patch; an image is repeated to fill it
    temporal_patch: int = 1
    # Values of a patch: True (row, column, channel, frame), False (channel, frame, row, column)
    channels_last: bool = True
    # Whether an image smaller than one token is first enlarged to it, keeping its aspect
    enlarges_small_images: bool = True
    # Whether the template's vision markers stay around a video's frames, which have markers of their own
    keeps_video_markers: bool = False
    # Pixels of an image after resizing: least, most
    image_pixels: tuple[int, int] = (65_536, 16_777_216)
    # Pixels of a whole clip, sampled frames x rows x columns: least, most
    video_pixels: tuple[int, int] = (4_096, 25_165_824)
    # Frames per second taken from a video
    video_hz: float = 2.0
    # Frames taken from a video: least (if it has so many), most
    video_frames: tuple[int, int] = (4, 768)
    # Of values in 0..1, per channel
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if min(self.patch, self.merge, self.temporal_patch, *self.video_frames) < 1 or self.video_hz <= 0:
            raise UsageError("the vision settings are wrong", expected="sizes, frames and rate above 0", got=self)
        for least, most in (self.image_pixels, self.video_pixels, self.video_frames):
            if least > most:
                raise UsageError("a limit of the vision settings is wrong", expected="least, most", got=(least, most))

    @property
    def token_side(self) -> int:
        """Pixels per side of one token."""
        return self.patch * self.merge

    @property
    def patch_values(self) -> int:
        """Values of one patch."""
        return 3 * self.patch**2 * self.temporal_patch


EDGE = VisionSettings()
QWEN3_VL = VisionSettings(temporal_patch=2, channels_last=False, enlarges_small_images=False, keeps_video_markers=True)

# model_type of the vision encoder's config -> what it wants
_BY_TYPE = {"cosmos3_edge_vision": EDGE, "qwen3_vl_vision": QWEN3_VL}


def settings_from_config(config: Mapping[str, Any]) -> VisionSettings:
    """Those of a model, by its `vision_config` (`manifest.model["vision_config"]`).

    Raises:
        BundleError: a vision encoder of another type.
    """
    kind = config.get("model_type")
    if kind not in _BY_TYPE:
        raise BundleError("the vision encoder is of an unknown type", expected=" or ".join(_BY_TYPE), got=kind)
    base = _BY_TYPE[kind]
    return dataclasses.replace(
        base,
        patch=int(config.get("patch_size", base.patch)),
        merge=int(config.get("spatial_merge_size", base.merge)),
        temporal_patch=int(config.get("temporal_patch_size", base.temporal_patch)),
    )
