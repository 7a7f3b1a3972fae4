"""Where a branch's velocities come from: computed at every step, repeated by plan, or extrapolated by SeaCache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Protocol

import numpy as np

from motedge.runtime.engine import FloatArray
from motedge.runtime.step_cache.options import FixedCache, StepCache
from motedge.runtime.step_cache.sea import SeaIndicator, SeaRule

# Of vision, action and, where there is sound, sound
Velocities = tuple[FloatArray, ...]


class Forward(Protocol):
    """What is needed of `motedge.runtime.branch.GenBranch`."""

    def forward(self, step: int) -> Velocities:
        """Velocities, valid until this branch's next forward."""
        ...


class VelocitySource(Protocol):
    """One branch over one run of the loop."""

    # Whether the last call of `at` computed nothing
    reused: bool

    def at(self, step: int) -> Velocities:
        """Velocities at a step, valid until the next call; steps come in order."""
        ...


class Computed:
    """A forward at every step."""

    reused = False

    def __init__(self, branch: Forward) -> None:
        self._branch = branch

    def at(self, step: int) -> Velocities:
        """See `VelocitySource.at`."""
        return self._branch.forward(step)


class Repeated:
    """A forward at the planned steps, else the last one's velocities, which still lie in the branch's buffers."""

    def __init__(self, branch: Forward, computes: Sequence[bool]) -> None:
        """`computes`: for each step, whether the forward runs; the first that is asked for must."""
        self._branch, self._computes = branch, tuple(computes)
        self._last: Optional[Velocities] = None
        self.reused = False

    def at(self, step: int) -> Velocities:
        """See `VelocitySource.at`."""
        self.reused = self._last is not None and not self._computes[step]
        if self._last is None or not self.reused:
            self._last = self._branch.forward(step)
        return self._last


class Extrapolated:
    """SeaCache: velocities on the line, in the step's number, through those of the last two computed steps.

    With one computed step it is repeated. The reference extrapolates the layers' residual and runs the output heads
    anew; a graph of a whole forward ends in the velocities.
    """

    def __init__(self, branch: Forward, rule: SeaRule, indicator: SeaIndicator, timesteps: Sequence[float]) -> None:
        self._branch, self._rule, self._indicator, self._timesteps = branch, rule, indicator, timesteps
        # Step and velocities of the last computed steps, the newest last; own arrays
        self._history: list[tuple[int, Velocities]] = []
        self.reused = False

    def at(self, step: int) -> Velocities:
        """See `VelocitySource.at`."""
        indicator = self._indicator.at(step, self._timesteps[step])
        self.reused = not self._rule.computes(step, indicator)
        if self.reused:
            return self._predicted(step)
        computed = self._branch.forward(step)
        self._history = [*self._history[-1:], (step, tuple(velocity.copy() for velocity in computed))]
        return computed

    def _predicted(self, step: int) -> Velocities:
        newest, velocities = self._history[-1]
        if len(self._history) == 1:
            return velocities
        before, earlier = self._history[0]
        reach = np.float32((step - newest) / (newest - before))
        return tuple(now + reach * (now - then) for now, then in zip(velocities, earlier))


def velocity_sources(
    cache: Optional[StepCache],
    branches: Sequence[Forward],
    vision: FloatArray,
    moves: bool,
    timesteps: Sequence[float],
    guided: Sequence[bool],
) -> tuple[VelocitySource, VelocitySource]:
    """The sources of the conditional and the unconditional branch for one run.

    Args:
        cache: the rule; None computes every step.
        branches: both, bound.
        vision: the state's latent [C, T, h, w], fp32.
        moves: whether any of its frames is generated; where none is, SeaCache has nothing to see and computes all.
        timesteps: of the schedule, 0..1000.
        guided: for each step, whether guidance is active.
    """
    cond, uncond = branches
    if cache is None:
        return Computed(cond), Computed(uncond)
    if isinstance(cache, FixedCache):
        plan = cache.computed(guided)
        return Repeated(cond, [first for first, _ in plan]), Repeated(uncond, [second for _, second in plan])
    if not moves:
        return Computed(cond), Computed(uncond)
    indicator, steps = SeaIndicator(vision), len(timesteps)
    first, second = (
        Extrapolated(branch, SeaRule(cache.threshold, steps), indicator, timesteps) for branch in (cond, uncond)
    )
    return first, second
