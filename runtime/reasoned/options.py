"""How the reasoner is asked, and when."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError, closest
from motedge.runtime.reasoner.sampling import UPSAMPLER, SamplingOptions

PLAN, JSON_PROMPT = "plan", "json-prompt"
# Mode -> how its tokens are chosen: plans are short and the likeliest ones, dense prompts as spec 4.3 has them
_SAMPLING = {PLAN: SamplingOptions(max_new_tokens=256), JSON_PROMPT: UPSAMPLER}
MODES = tuple(_SAMPLING)


@dataclass(frozen=True)
class ReasonOptions:
    """Of `with_reasoning` and `reasoned_request`. With neither slice nor background, a reply is written whole before
    the tick acts."""

    # A new reply is begun at every so many ticks, or as soon as the one before is done
    every: int = 1
    # PLAN: steps, put behind the instruction; JSON_PROMPT: a dense caption in JSON
    mode: str = PLAN
    # A reply is cut there; None: 256 for a plan, the upsampler's 20,000 for a dense caption
    max_tokens: Optional[int] = None
    # How tokens are chosen; None: greedy for a plan, the upsampler's for a dense caption
    sampling: Optional[SamplingOptions] = None
    # Tokens written between two ticks at most; looking at the image, and each piece of the prompt, count as one
    slice_tokens: Optional[int] = None
    # Time between two ticks after which no further token is begun
    slice_ms: Optional[float] = None
    # Written in a thread of its own, while ticks run: GPU backends whose prompts the reasoner's tower reads
    background: bool = False
    # Tokens of the reasoner's prompt that are read at once
    piece: int = 64
    # Whether the model thinks before it answers, where its template knows of it; None leaves its default
    thinking: Optional[bool] = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"unknown mode of reasoning {self.mode!r}", fix=closest(self.mode, MODES))
        for name in ("every", "max_tokens", "slice_tokens", "piece"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} of the reasoning is wrong", expected="1 or more", got=value)
        if self.slice_ms is not None and not self.slice_ms > 0:
            raise UsageError("slice_ms of the reasoning is wrong", expected="more than 0", got=self.slice_ms)

        if self.background and self.sliced:
            raise UsageError(
                "a reply is written in the background or in slices, not both",
                expected="background, or slice_tokens or slice_ms",
                got=f"slice_tokens {self.slice_tokens}, slice_ms {self.slice_ms}, and background",
            )

    @property
    def sliced(self) -> bool:
        """Whether a reply is spread over the time between ticks."""
        return self.slice_tokens is not None or self.slice_ms is not None

    @property
    def within_ticks(self) -> bool:
        """Whether a tick waits for the reply."""
        return not self.sliced and not self.background

    def tokens(self) -> SamplingOptions:
        """How tokens are chosen, and how many at most."""
        chosen = self.sampling or _SAMPLING[self.mode]
        return chosen if self.max_tokens is None else dataclasses.replace(chosen, max_new_tokens=self.max_tokens)
