"""The rules by which forwards are left out, as part of the sampler's settings, and their form as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

from motedge.errors import UsageError

FORMS = ("every:N", "steps:K,K,...", "cond:K,...", "uncond:K,...", "cond:K,.../uncond:K,...", "sea", "sea:THRESHOLD")
# cosmos-framework at 5eee9ed, scripts/inference: its default
SEA_THRESHOLD = 0.35


@dataclass(frozen=True)
class FixedCache:
    """Steps known beforehand at which a branch of guidance repeats the velocity of its last computed forward.

    A branch's first forward is always computed, and with `every` the last step too.
    """

    # Steps from 0 that repeat the conditional velocity, and the unconditional one where guidance is active
    cond: tuple[int, ...] = ()
    uncond: tuple[int, ...] = ()
    # In place of both lists: compute steps 0, n, 2 n, ... and the last
    every: Optional[int] = None

    def __post_init__(self) -> None:
        if self.every is not None:
            if self.cond or self.uncond:
                raise UsageError("a step cache has both a period and lists of steps", fix="give one of them")
            if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
                raise UsageError("the period of the step cache is wrong", expected="1 or more", got=self.every)
            return
        for name in ("cond", "uncond"):
            steps = tuple(sorted(set(getattr(self, name))))
            for step in steps:
                if isinstance(step, bool) or not isinstance(step, int) or step < 1:
                    raise UsageError(
                        f"the step cache can't repeat step {step!r}",
                        expected="steps from 1 on",
                        why="step 0 has none before it",
                    )
            object.__setattr__(self, name, steps)

    def check(self, steps: int) -> None:
        """UsageError if a step is named that a schedule of `steps` does not have."""
        last = max((*self.cond, *self.uncond, 0))
        if last >= steps:
            raise UsageError(
                f"the step cache names step {last}",
                expected=f"1 to {steps - 1}, for {steps} steps",
                fix="leave it out, or sample with more steps",
            )

    def computed(self, guided: Sequence[bool]) -> tuple[tuple[bool, bool], ...]:
        """For each step, whether the conditional and the unconditional forward run; `guided`: where guidance acts."""
        plan, started = [], False
        for k, active in enumerate(guided):
            cond = not self._repeats(self.cond, k, len(guided))
            uncond = active and not (started and self._repeats(self.uncond, k, len(guided)))
            started = started or active
            plan.append((cond, uncond))
        return tuple(plan)

    def _repeats(self, listed: tuple[int, ...], k: int, steps: int) -> bool:
        if self.every is not None:
            return k % self.every != 0 and k != steps - 1
        return k in listed

    def __str__(self) -> str:
        if self.every is not None:
            return f"every:{self.every}"
        if self.cond == self.uncond:
            return f"steps:{_joined(self.cond)}"
        parts = [f"{name}:{_joined(steps)}" for name, steps in (("cond", self.cond), ("uncond", self.uncond)) if steps]
        return "/".join(parts)


@dataclass(frozen=True)
class SeaCache:
    """The SeaCache rule: compute a step once what the latent shows has changed enough since the last computed one.

    https://arxiv.org/abs/2602.18993, as cosmos-framework applies it; see `motedge.runtime.step_cache.sea`.
    """

    # Accumulated relative change of the filtered latent at which a step is computed; 0: all are
    threshold: float = SEA_THRESHOLD

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise UsageError("SeaCache's threshold is wrong", expected="a number of 0 or more", got=self.threshold)

    def check(self, steps: int) -> None:
        """Goes with any number of steps."""

    def __str__(self) -> str:
        return f"sea:{self.threshold:g}"


StepCache = Union[FixedCache, SeaCache]


def parse_step_cache(text: str) -> StepCache:
    """Reads one of FORMS, such as "every:2", "steps:2,3", "cond:2/uncond:1,2,3" or "sea:0.2".

    Raises:
        UsageError: another form, or a value out of range.
    """
    word, _, value = text.strip().partition(":")
    try:
        if word == "sea":
            return SeaCache(float(value)) if value else SeaCache()
        if word == "every":
            return FixedCache(every=int(value))
        if word == "steps":
            steps = _steps(value)
            return FixedCache(steps, steps)
        lists: dict[str, tuple[int, ...]] = {}
        for part in text.strip().split("/"):
            name, _, value = part.partition(":")
            if name not in ("cond", "uncond") or name in lists:
                raise ValueError(name)
            lists[name] = _steps(value)
        return FixedCache(lists.get("cond", ()), lists.get("uncond", ()))
    except ValueError as error:
        raise UsageError("the step cache is of no known form", expected=" | ".join(FORMS), got=repr(text)) from error


def _steps(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _joined(steps: Sequence[int]) -> str:
    return ",".join(map(str, steps))
