"""Sampling of distilled models: a fixed list of noise levels, and fresh noise after every step.

The published 4-step variants (Cosmos3-Super-Text2Image-4Step, -Image2Video-4Step) carry the list; guidance is part of
their weights. Equal to diffusers 0.42.1's `FlowMatchEulerDiscreteScheduler` with `stochastic_sampling` and shift 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from motedge.errors import InternalError, UsageError
from motedge.runtime.engine import FloatArray
from motedge.runtime.noise import step_noise
from motedge.runtime.schedule import TRAIN_TIMESTEPS


class StepNoise(Protocol):
    """Where fresh noise comes from; `motedge.runtime.noise.step_noise` unless a test puts in its own."""

    def __call__(self, seed: int, step: int, count: int) -> FloatArray:
        """fp32 [count], standard normal."""
        ...


@dataclass(frozen=True)
class DistilledSchedule:
    """Given noise levels and a last one of 0. The network is told 1000 sigma, not cut to a whole number."""

    # sigma of each step, falling, in (0, 1]
    levels: tuple[float, ...]
    # fp32 [steps + 1], the last one 0
    sigmas: FloatArray = field(init=False, repr=False, compare=False)
    # fp32 [steps]
    timesteps: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_levels(self.levels)
        sigmas = np.array([*self.levels, 0.0], np.float32)
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "timesteps", sigmas[:-1] * np.float32(TRAIN_TIMESTEPS))

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.levels)


def check_levels(levels: Sequence[float]) -> None:
    """UsageError unless these are noise levels that fall, the first at most 1 and the last above 0."""
    values = [*levels, 0.0]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in levels)
    if not levels or not numbers or not 0 < values[0] <= 1 or any(a <= b for a, b in zip(values, values[1:])):
        raise UsageError(
            "the noise levels of a distilled model are wrong",
            expected="numbers that fall, the first at most 1, the last above 0",
            got=list(levels),
        )


class StochasticEuler:
    """x0 = x - sigma v; x' = (1 - sigma') x0 + sigma' noise, in place; the last step leaves x0.

    Clean positions are noised too: the caller puts them back after each step.
    """

    def __init__(
        self,
        schedule: DistilledSchedule,
        counts: Sequence[int],
        seed: int,
        noise: StepNoise = step_noise,
    ) -> None:
        """`counts`: elements of each modality, one after the other in the state; `seed`: of the request."""
        self._schedule, self._counts, self._seed, self._noise = schedule, tuple(counts), seed, noise
        self._next_step = 0

    def step(self, k: int, state: FloatArray, velocity: FloatArray) -> None:
        """Replaces the state of step k by that of step k + 1; both fp32, flat, contiguous."""
        if k != self._next_step or k >= self._schedule.steps:
            raise InternalError(f"step {k} of a distilled model was asked for, step {self._next_step} is next")
        sigma, following = self._schedule.sigmas[k], self._schedule.sigmas[k + 1]
        state -= sigma * velocity
        if following > 0:
            state *= np.float32(1) - following
            # All modalities start the same stream, as the initial noise does
            noise, start = self._noise(self._seed, k, max(self._counts)), 0
            for count in self._counts:
                state[start : start + count] += following * noise[:count]
                start += count
        self._next_step = k + 1
