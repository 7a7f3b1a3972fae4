"""The state that is denoised: vision latent and action rows in one flat fp32 vector, with the clean positions held."""

from __future__ import annotations

import math

import numpy as np

from motedge.runtime.engine import FloatArray
from motedge.runtime.request import GenInputs


class GenState:
    """Buffers for one pair of shapes. The views are bound to engines directly; the solver works on the flat vectors."""

    def __init__(self, vision_shape: tuple[int, ...], action_shape: tuple[int, ...]) -> None:
        """vision_shape: (C, T, h, w). action_shape: (A, Z)."""
        self.vision_count, self.action_count = math.prod(vision_shape), math.prod(action_shape)
        self.size = self.vision_count + self.action_count
        # [vision | action]
        self.flat = np.zeros(self.size, np.float32)
        self.flat_velocity = np.zeros(self.size, np.float32)
        self.vision, self.action = self._views(self.flat, vision_shape, action_shape)
        self.vision_velocity, self.action_velocity = self._views(self.flat_velocity, vision_shape, action_shape)
        # Own buffers, so that an engine sees the same memory at every tick
        self.vision_noisy = np.ones(vision_shape[1], np.float32)
        self.action_noisy = np.ones(action_shape[0], np.float32)
        # fp32 [1], 0..1000
        self.t = np.zeros(1, np.float32)

    @property
    def noise_count(self) -> int:
        """Numbers to draw: both modalities start the same stream, so the longer one's are enough."""
        return max(self.vision_count, self.action_count)

    def reset(self, inputs: GenInputs, noise: FloatArray) -> None:
        """Starts from noise, fp32 [noise_count], with the clean positions filled in and unused channels at 0."""
        self.flat[: self.vision_count] = noise[: self.vision_count]
        self.flat[self.vision_count :] = noise[: self.action_count]
        self.vision_noisy[:] = inputs.vision_noisy
        self.action_noisy[:] = inputs.action_noisy
        self.hold_clean(inputs)

    def hold_clean(self, inputs: GenInputs) -> None:
        """Puts the clean positions back to exactly their values.

        Their velocity is 0, so the solver moves them by rounding alone, an ulp a step.
        """
        frames, rows = inputs.vision_noisy == 0, inputs.action_noisy == 0
        self.vision[:, frames] = inputs.vision_clean[:, frames]
        self.action[rows] = inputs.action_clean[rows]
        self.action[:, inputs.raw_dim :] = 0

    def _views(
        self, flat: FloatArray, vision_shape: tuple[int, ...], action_shape: tuple[int, ...]
    ) -> tuple[FloatArray, FloatArray]:
        head, tail = flat[: self.vision_count], flat[self.vision_count :]
        return head.reshape(vision_shape), tail.reshape(action_shape)
