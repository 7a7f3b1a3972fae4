"""The state that is denoised: vision, action rows and sound in one flat fp32 vector, with the clean positions held."""

from __future__ import annotations

import math

import numpy as np

from motedge.runtime.engine import FloatArray
from motedge.runtime.request import GenInputs


class GenState:
    """Buffers for one set of shapes. The views are bound to engines directly; the solver works on the flat vectors."""

    def __init__(
        self, vision_shape: tuple[int, ...], action_shape: tuple[int, ...], sound_shape: tuple[int, ...] = (0, 0)
    ) -> None:
        """vision_shape: (C, T, h, w). action_shape: (A, Z). sound_shape: (Q, J), where there is sound."""
        self.shapes = vision_shape, action_shape, sound_shape
        self.counts = tuple(math.prod(shape) for shape in self.shapes)
        self.vision_count, self.action_count, self.sound_count = self.counts
        self.size = sum(self.counts)
        # [vision | action | sound]
        self.flat = np.zeros(self.size, np.float32)
        self.flat_velocity = np.zeros(self.size, np.float32)
        self.vision, self.action, self.sound = self._views(self.flat)
        self.velocities = self._views(self.flat_velocity)
        self.vision_velocity, self.action_velocity, self.sound_velocity = self.velocities
        # Own buffers, so that an engine sees the same memory at every tick
        self.vision_noisy = np.ones(vision_shape[1], np.float32)
        self.action_noisy = np.ones(action_shape[0], np.float32)
        self.sound_noisy = np.ones(sound_shape[1], np.float32)
        # fp32 [1], 0..1000
        self.t = np.zeros(1, np.float32)

    @property
    def noise_count(self) -> int:
        """Numbers to draw: all modalities start the same stream, so the longest one's are enough."""
        return max(self.counts)

    def reset(self, inputs: GenInputs, noise: FloatArray) -> None:
        """Starts from noise, fp32 [noise_count], with the clean positions filled in and unused channels at 0."""
        start = 0
        for count in self.counts:
            self.flat[start : start + count] = noise[:count]
            start += count
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

    def _views(self, flat: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        vision, action, sound = np.split(flat, np.cumsum(self.counts[:2]))
        shapes = self.shapes
        return vision.reshape(shapes[0]), action.reshape(shapes[1]), sound.reshape(shapes[2])
