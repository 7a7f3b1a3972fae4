"""Whether a drive was what it was told to be, and how sure one can be of a share of successes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from examples.train_small.drive.drive import Drive
from examples.train_small.road.expert import RATE_HZ
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.road.track import HALF_WIDTH_M, Array

# Before this a car may still be on its way to its side, or braking
SETTLED_S = 3.0
# Longer off the road than this, and a drive has failed
OFF_S = 1.0
# Of the settled time on the right side, at least; and of the expert's way
SHARE, PROGRESS = 0.95, 0.6
SLOW_M_S, STANDING_M_S, MIDDLE_M = 7.5, 0.3, 1.3
DONE = (*BEHAVIOURS, "off the road", "other")


@dataclass(frozen=True)
class Score:
    """One drive, judged."""

    success: bool
    # Way over the expert's, at most 1; 1 for "stop" where the car stood
    progress: float
    # Longest time off the road, s
    off_s: float
    # Share of the settled time in which the car did as told
    obeyed: float
    # One of DONE: what somebody would say who saw the drive and not the instruction
    done: str


def score(drive: Drive) -> Score:
    """Judges a drive."""
    off_s = _longest(np.abs(drive.lateral) > HALF_WIDTH_M) / RATE_HZ
    first = min(round(SETTLED_S * RATE_HZ), len(drive.lateral) - 1)
    lateral, speed = drive.lateral[first:], drive.speed[first:]
    as_told = {
        "left": lateral < 0,
        "right": lateral > 0,
        "slow": (np.abs(lateral) < 2 * MIDDLE_M) & (speed < SLOW_M_S) & (speed > STANDING_M_S),
        "stop": np.abs(speed) < STANDING_M_S,
    }[drive.behaviour]
    obeyed = float(as_told.mean())
    stop = drive.behaviour == "stop"
    progress = float(np.clip(drive.way[-1] / max(drive.way_expert, 1e-6), 0, 1)) if not stop else obeyed
    success = off_s <= OFF_S and obeyed >= SHARE and progress >= PROGRESS
    return Score(success, round(progress, 4), off_s, round(obeyed, 4), _done(lateral, speed, off_s))


def wilson(successes: int, drives: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    if not drives:
        return 0.0, 1.0
    share, square = successes / drives, z * z
    middle = (share + square / (2 * drives)) / (1 + square / drives)
    half = z / (1 + square / drives) * math.sqrt(share * (1 - share) / drives + square / (4 * drives**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _done(lateral: Array, speed: Array, off_s: float) -> str:
    if off_s > OFF_S:
        return "off the road"
    middle, pace = float(np.median(lateral)), float(np.median(speed))
    if pace < STANDING_M_S:
        return "stop"
    if abs(middle) <= MIDDLE_M:
        return "slow" if pace < SLOW_M_S else "other"
    return "left" if middle < 0 else "right"


def _longest(flags: np.ndarray) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
