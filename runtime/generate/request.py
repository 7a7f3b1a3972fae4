"""What is asked of the generator and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from numpy.typing import ArrayLike

from motedge.errors import UsageError, closest
from motedge.runtime.actions.stats import ActionStats
from motedge.runtime.engine import FloatArray
from motedge.runtime.generate.buckets import Size
from motedge.runtime.generate.caption import NEGATIVE_METADATA
from motedge.runtime.generate.mode import ACTION_MODES, MODES
from motedge.runtime.policy.resize import Image
from motedge.runtime.request import LoopCounters, LoopTimings, SamplerSettings

KEEP = ("first", "last")
# Frames a second, the least and the most: what lies beyond is no video, and an mp4 would play it at another rate
RATES = (0.1, 1000.0)
# Modes whose videos may have sound
SOUND_MODES = ("text2video", "image2video", "video2video")
# Mode -> what it is given beside the prompt, and what it has no place for
_GIVEN = {
    "text2image": ((), ("image", "video", "actions", "state")),
    "text2video": ((), ("image", "video", "actions", "state")),
    "image2video": (("image",), ("video", "actions", "state")),
    "video2video": (("video",), ("image", "actions", "state")),
    "forward_dynamics": (("image", "actions"), ("video", "state")),
    "inverse_dynamics": (("video",), ("image", "actions", "state")),
    "policy": (("image",), ("video", "actions")),
}


@dataclass(frozen=True)
class GenerateRequest:
    """One request. What is None is taken from the mode's defaults, the bundle or the embodiment."""

    # One of `motedge.runtime.generate.mode.MODES`
    mode: str
    # Text, or a JSON object as text
    prompt: str = ""
    # What is not wanted; only guidance reads it
    negative: str = ""
    # What the negative prompt says of duration and resolution: "none" (the framework) or "inverse" (diffusers)
    negative_metadata: str = "none"
    # Puts the system prompt before both, as diffusers does for Nano and Super and the framework for none
    system_prompt: bool = False
    # First frame, uint8 [rows, columns, 3]
    image: Optional[Image] = None
    # Frames, uint8 [rows, columns, 3] each
    video: Optional[Sequence[Image]] = None
    # [n, D], raw: one for each step from frame to frame
    actions: Optional[ArrayLike] = None
    # [D], raw: where the robot is, for `policy` with a state row
    state: Optional[ArrayLike] = None
    # Whose actions they are; needed by modes with actions
    embodiment: Optional[str] = None
    # Used channels of an action, where the embodiment has several numbers
    raw_dim: Optional[int] = None
    # Where the camera is; None: the embodiment's usual place
    viewpoint: Optional[str] = None
    # By which actions are normalised, where the model's are
    stats: Optional[ActionStats] = None
    # Pixel frames, the given ones included; rounded down to 4 k + 1
    frames: Optional[int] = None
    # Frames, and actions, a second; within `RATES`
    fps: Optional[float] = None
    # Latent frames of `video` that video2video keeps, and from which end of it they are taken
    condition_frames: tuple[int, ...] = (0, 1)
    keep: str = "first"
    # With sound: Nano and Super, on a generator that was opened for it
    sound: bool = False
    # Seed of the noise, 0 to 2**32 - 1
    seed: int = 0
    # Fields of SamplerSettings that differ from the mode's
    sampler: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"unknown mode {self.mode!r}", fix=closest(self.mode, MODES))
        needed, without = _GIVEN[self.mode]
        for name in needed:
            if getattr(self, name) is None:
                raise UsageError(f"mode {self.mode!r} needs {name}", fix=f"give {name}")
        for name in without:
            if getattr(self, name) is not None:
                raise UsageError(f"mode {self.mode!r} has no place for {name}", fix=_better_mode(self.mode, name))
        if self.acts and self.embodiment is None:
            raise UsageError(f"mode {self.mode!r} needs an embodiment", fix="give embodiment, such as av")
        if self.negative_metadata not in NEGATIVE_METADATA:
            fix = closest(self.negative_metadata, NEGATIVE_METADATA)
            raise UsageError(f"unknown kind of metadata {self.negative_metadata!r}", fix=fix)
        if self.keep not in KEEP:
            raise UsageError(f"unknown end of a video {self.keep!r}", fix=closest(self.keep, KEEP))
        if self.keep != KEEP[0] and self.mode != "video2video":
            raise UsageError(
                f"mode {self.mode!r} takes no end of a video",
                got=self.keep,
                fix="cut the video, or take mode video2video",
            )
        self._check_numbers()
        if self.sound and self.mode not in SOUND_MODES:
            raise UsageError(f"mode {self.mode!r} makes no sound", fix=f"take mode {' or '.join(SOUND_MODES)}")
        if not self.condition_frames or min(self.condition_frames) < 0:
            got = list(self.condition_frames)
            raise UsageError("no latent frames to keep", expected="numbers from 0, such as 0, 1", got=got)

    def _check_numbers(self) -> None:
        # NaN lies within no range
        if self.fps is not None and not RATES[0] <= self.fps <= RATES[1]:
            expected = f"{RATES[0]:g} to {RATES[1]:g} frames a second"
            raise UsageError("the rate of the video is wrong", expected=expected, got=self.fps)
        if self.raw_dim is not None and self.raw_dim < 1:
            raise UsageError("raw_dim is wrong", expected="at least 1 channel", got=self.raw_dim)

    @property
    def acts(self) -> bool:
        """Whether there are actions."""
        return self.mode in ACTION_MODES


@dataclass(frozen=True)
class Generated:
    """What was made. `Generator.frames` turns its latents into pictures."""

    mode: str
    # fp32 [C, T, h, w], normalised, conditioning frames included
    latents: FloatArray
    # fp32 [n, D], raw, or the model's own where no statistics were given; None without actions to generate
    actions: Optional[FloatArray]
    # Names and units of the channels; empty where they are not known
    fields: tuple[str, ...]
    units: tuple[str, ...]
    # Whether actions are as a robot takes them, and not in the model's normalised space
    raw_actions: bool
    # Of the video and its actions
    frames: int
    fps: float
    # Rows and columns in pixels
    size: Size
    seed: int
    settings: SamplerSettings
    timings: LoopTimings
    counters: LoopCounters
    # Tokens of the prompt, the form around it included
    prompt_tokens: int
    # fp32 [Q, J], which `Generator.waveform` decodes; None without sound
    sound: Optional[FloatArray] = None


def _better_mode(mode: str, name: str) -> str:
    others = [other for other, (needed, _) in _GIVEN.items() if name in needed]
    return f"leave it out, or take mode {' or '.join(others)}" if others else "leave it out, or take mode policy"
