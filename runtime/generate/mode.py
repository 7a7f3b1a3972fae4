"""The modes of the generator, and how each samples where a request does not say. Data: ../data/generate_modes.toml."""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.errors import UsageError, closest
from motedge.runtime.request import SamplerSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MEDIA_MODES = ("text2image", "text2video", "image2video", "video2video")
ACTION_MODES = ("forward_dynamics", "inverse_dynamics", "policy")
MODES = (*MEDIA_MODES, *ACTION_MODES)
_FAMILIES = ("edge", "nano", "super")


@dataclass(frozen=True)
class ModeDefaults:
    """How one mode samples."""

    mode: str
    steps: int
    guidance: float
    shift: float
    # Pixel frames, those that are given included
    frames: int
    # Frames a second
    fps: float

    def settings(self, **changes: Any) -> SamplerSettings:
        """The sampler's settings, with some of them replaced.

        Raises:
            UsageError: a value out of range.
        """
        return SamplerSettings(**{"steps": self.steps, "guidance": self.guidance, "shift": self.shift, **changes})


def mode_defaults(mode: str, family: str) -> ModeDefaults:
    """The defaults of a mode for a family, "edge", "nano" or "super".

    Raises:
        UsageError: there is no such mode; names the closest.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}", fix=closest(mode, MODES))
    entry = _table()[mode]
    common = {key: value for key, value in entry.items() if key not in _FAMILIES}
    return ModeDefaults(mode, **{**common, **entry.get(family, {})})


@functools.lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    text = (importlib.resources.files("motedge.runtime") / "data/generate_modes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
