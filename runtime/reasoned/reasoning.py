"""What the reasoner wrote for one request, and what the generator was given because of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Reasoning:
    """Travels with the answer, so that both texts can be read beside the actions or the video."""

    # One of `motedge.runtime.reasoned.options.MODES`
    mode: str
    instruction: str
    # The text that the generator was given: with the plan, or the plain one
    prompt: str
    # What the reasoner wrote, thoughts apart
    answer: str = ""
    thoughts: str = ""
    # What was read of the answer; None: the plain instruction stands in for it
    plan: Optional[Mapping[str, Any]] = None
    # Why it does
    problem: Optional[str] = None
    # How the reply ended, as `motedge.runtime.reasoner.events.Finished.reason`; None: there was none
    ended: Optional[str] = None
    # Of the reply
    tokens: int = 0
    # Ticks since the observation that was thought about; 0: it is this tick's own
    age_ticks: int = 0
    # Stage -> ms of work; where it was spread over ticks, what passed between its steps is not in it
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def fell_back(self) -> bool:
        """Whether the plain instruction stands in for a plan."""
        return self.plan is None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "mode": self.mode,
            "instruction": self.instruction,
            "prompt": self.prompt,
            "answer": self.answer,
            "thoughts": self.thoughts,
            "plan": None if self.plan is None else dict(self.plan),
            "fell_back": self.fell_back,
            "problem": self.problem,
            "ended": self.ended,
            "tokens": self.tokens,
            "age_ticks": self.age_ticks,
            "timings_ms": {name: round(value, 3) for name, value in self.timings_ms.items()},
        }
