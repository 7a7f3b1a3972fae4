"""Records requests of the closed loop, to calibrate on: a bundle's policy drives, and every few plans one is kept.

python -m examples.train_small.closed_loop.record --bundle out/small_road --out out/requests
motedge quantize out/small_road --recipe fp8 --calibration out/requests --out out/small_road-fp8
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from examples.train_small.road.camera import Image
from examples.train_small.road.simulator import Simulator
from motedge.errors import MotedgeError, UsageError
from motedge.runtime.policy.loader import load_policy
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.policy import Policy
from motedge.runtime.policy.request_record import check_record_folder, record_request

# Of the roads of the training's data: what is calibrated on is not what is measured on (decision 16)
FIRST_SEED, ROADS = 0, 6
# Plans between two that are kept: successive pictures are nearly the same
EVERY = 6
# As `BundleDriver`
_SAMPLER = {"steps": 4, "shift": 5.0, "guidance": 1.0}


class RecordingDriver:
    """A policy at the wheel that keeps some of what it was asked, one session (folder) a road."""

    def __init__(self, policy: Policy, out: Path, every: int = EVERY) -> None:
        """Nothing is written before the first plan."""
        self._policy, self._out, self._every = policy, out, every
        # Plans, and requests that were kept
        self.plans = self.kept = 0

    def plan(self, picture: Image, instruction: str, simulator: Simulator, seed: int) -> NDArray[np.float32]:
        """See `examples.train_small.drive.drivers.Driver`."""
        observation = Observation.of_camera(picture, instruction, source=f"road {simulator.seed}")
        chunk = self._policy.act(observation, seed=seed)
        if self.plans % self._every == 0:
            record_request(self._out / f"road-{simulator.seed:06d}", observation, chunk)
            self.kept += 1
        self.plans += 1
        return np.asarray(chunk.actions, np.float32)


def record(bundle: Path, out: Path, roads: int = ROADS, recipe: Optional[str] = None) -> int:
    """Drives the first roads of the training's data, each for all behaviours.

    Returns:
        How many requests were kept.

    Raises:
        UsageError: no road, or the folder has requests already.
        BundleError, HostError: as `load_policy`.
    """
    from examples.train_small.drive.drive import drive
    from examples.train_small.road.instructions import TASKS

    if not 1 <= roads <= 1000:
        raise UsageError("the number of roads is wrong", expected="1 to 1000", got=roads)
    check_record_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", why="two recordings would be one data set", fix="give another folder")
    simulator = Simulator()
    policy = load_policy(bundle, recipe=recipe, check="size", threads=1, **_SAMPLER)
    try:
        driver = RecordingDriver(policy, out)
        for number in range(roads):
            for turn in range(4):
                # All four behaviours on each road, in other words on the next
                task = TASKS[(4 * number + 3 * turn) % len(TASKS)]
                drive(driver, simulator, FIRST_SEED + number, task)
    finally:
        policy.close()
        simulator.close()
    return driver.kept


def main(arguments: Optional[list[str]] = None) -> int:
    """Records; says how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="of the small checkpoint, unquantized")
    parser.add_argument("--out", type=Path, required=True, help="folder of the requests, one session a road")
    parser.add_argument("--roads", type=int, default=ROADS, help="four drives each (default %(default)s)")
    args = parser.parse_args(arguments)
    try:
        kept = record(args.bundle, args.out, args.roads)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: {kept} requests of {args.roads} roads")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    sys.exit(main())
