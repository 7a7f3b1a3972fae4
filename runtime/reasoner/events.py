"""What a reply is made of, as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from motedge.runtime.reasoner.thinking import Part

STOP, LENGTH, CANCELLED = "stop", "length", "cancelled"


@dataclass(frozen=True)
class Started:
    """The prompt was read."""

    prompt_tokens: int
    # Of which stand for images and videos
    visual_tokens: int
    # Vision encoder
    vision_ms: float
    # Understanding tower over the whole prompt
    prefill_ms: float


@dataclass(frozen=True)
class Finished:
    """The reply is over."""

    # STOP: the model ended it; LENGTH: a limit cut it; CANCELLED: the caller did
    reason: str
    thinking: str
    answer: str
    # Without the token that ended it
    token_ids: tuple[int, ...]
    # All steps after the prompt, sampling and decoding of text included
    decode_ms: float

    @property
    def tokens_per_s(self) -> float:
        """Rate of the reply; 0 if nothing was measured."""
        return 1e3 * len(self.token_ids) / self.decode_ms if self.decode_ms > 0 else 0.0


@dataclass(frozen=True)
class Pause:
    """A step of work is done: whoever acts meanwhile may leave the reply here for as long as they like."""

    # Of the reply so far; 0 while the prompt is read
    tokens: int


Event = Union[Started, Part, Finished]
