"""One recorded drive of the expert, disturbed on purpose, with the undisturbed expert's plans as labels.

A policy that saw only perfect driving does not know the way back from its own first error. So the car starts askew and
beside its line, its steering is disturbed, and for moments it is driven to another line than it was told. What is
recorded as the action is at every frame the clean plan from where the car then is: DART's noise (Laskey et al., 2017),
with the noise left out of the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.train_small.road.expert import RATE_HZ, Expert
from examples.train_small.road.instructions import BEHAVIOURS, TASKS, TRAINED
from examples.train_small.road.simulator import RATE_HZ as PHYSICS_HZ
from examples.train_small.road.simulator import Simulator
from examples.train_small.road.track import HALF_WIDTH_M, Array

_STEPS = int(PHYSICS_HZ / RATE_HZ)
# A stopped car looks the same for ever
STOP_S = 4.0
_SHARES = (0.3, 0.3, 0.2, 0.2)
# Disturbances: steering as noise with a memory, bursts of it, and moments on another line
_STEER_RAD, _MEMORY_S, _SPEED_M_S = 0.06, 0.4, 1.0
_BURSTS_A_S, _BURST_RAD, _BURST_S = 0.25, 0.3, 0.4
_STRAYS_A_S, _STRAY_S = 0.15, 1.2


@dataclass(frozen=True)
class Episode:
    """Frames of one drive at 10 Hz."""

    # uint8 [n, 96, 96, 3]
    frames: NDArray[np.uint8]
    # x, y, yaw: fp32 [n, 3]
    poses: NDArray[np.float32]
    # m/s, fp32 [n]
    speed: NDArray[np.float32]
    # For each behaviour, fp32 [n, 4, 16, 9]
    plans_all: NDArray[np.float32]
    # Places in BEHAVIOURS and TASKS
    behaviour: int
    task_index: int
    seed: int


def record(simulator: Simulator, seed: int, seconds: float) -> Episode:
    """Drives the road of a seed; everything that is drawn by lot comes from the same seed."""
    lot = np.random.default_rng([seed, 1])
    name = str(lot.choice(BEHAVIOURS, p=_SHARES))
    behaviour, text = BEHAVIOURS.index(name), str(lot.choice(TRAINED[name]))
    s = float(lot.uniform(0, 900))
    beside = float(lot.uniform(-1, 1) * HALF_WIDTH_M * 0.95)
    simulator.reset(seed, s, beside, float(lot.normal(0, 0.25)), float(lot.uniform(0, 13)))
    expert, disturb = Expert(simulator.track), _Disturbance(lot, behaviour)
    frames, poses, speeds, near, at = [], [], [], [], np.array([s])
    for _ in range(round(min(seconds, STOP_S if name == "stop" else seconds) * RATE_HZ)):
        frames.append(simulator.picture())
        poses.append(simulator.pose())
        speeds.append(simulator.speed())
        near.append(at[0])
        disturb.draw()
        for _ in range(_STEPS):
            curvature, speed, at, _ = expert.command(simulator.pose()[None], at, np.array([disturb.line]))
            faster = disturb.faster if speed[0] > 0 else 0.0
            simulator.drive(float(curvature[0]), max(float(speed[0]) + faster, 0.0), disturb.steer)
    return Episode(
        np.stack(frames),
        np.array(poses, np.float32),
        np.array(speeds, np.float32),
        _plans(expert, np.array(poses), np.array(near)),
        behaviour,
        TASKS.index(text),
        seed,
    )


def _plans(expert: Expert, poses: Array, near: Array) -> NDArray[np.float32]:
    kinds = len(BEHAVIOURS)
    plans = expert.plan(np.repeat(poses, kinds, 0), np.tile(np.arange(kinds), len(poses)), np.repeat(near, kinds))
    return plans.reshape(len(poses), kinds, *plans.shape[1:])


class _Disturbance:
    """What keeps the expert from driving as it would, renewed at every frame."""

    def __init__(self, lot: np.random.Generator, behaviour: int) -> None:
        self._lot, self._told = lot, behaviour
        # rad; m/s; the behaviour whose line is followed now
        self.steer, self.faster, self.line = 0.0, 0.0, behaviour
        self._noise = self._burst = 0.0
        self._burst_left = self._stray_left = 0

    def draw(self) -> None:
        dt_s, lot = 1 / RATE_HZ, self._lot
        kept = np.exp(-dt_s / _MEMORY_S)
        fresh = np.sqrt(1 - kept**2)
        self._noise = kept * self._noise + fresh * float(lot.normal(0, _STEER_RAD))
        self.faster = kept * self.faster + fresh * float(lot.normal(0, _SPEED_M_S))
        self._burst_left, self._stray_left = self._burst_left - 1, self._stray_left - 1
        if self._burst_left <= 0:
            self._burst = 0.0
            if lot.random() < _BURSTS_A_S * dt_s:
                self._burst, self._burst_left = float(lot.normal(0, _BURST_RAD)), round(_BURST_S * RATE_HZ)
        if self._stray_left <= 0:
            self.line = self._told
            # Whoever is to stop is left standing
            if BEHAVIOURS[self._told] != "stop" and lot.random() < _STRAYS_A_S * dt_s:
                self.line, self._stray_left = int(lot.integers(len(BEHAVIOURS))), round(_STRAY_S * RATE_HZ)
        self.steer = self._noise + self._burst
