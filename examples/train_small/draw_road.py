"""Draws what the car sees on one of the roads and writes it as an observation folder, for `motedge run`.

python -m examples.train_small.draw_road --out scene --seed 200003 --behaviour left
motedge run BUNDLE --observation scene --plot way.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.train_small.road.instructions import CANONICAL
from examples.train_small.road.simulator import Simulator
from motedge.errors import MotedgeError
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation


def observe(seed: int, instruction: str, s: float = 120.0, lateral: float = 0.0) -> Observation:
    """The picture from a place on the road of `seed`, and what the driver is told.

    Args:
        seed: Of the road.
        instruction: In words.
        s: Metres along the road.
        lateral: Metres to the right of its middle.
    """
    simulator = Simulator()
    try:
        simulator.reset(seed, s=s, lateral=lateral, speed=8.0)
        picture = simulator.picture()
    finally:
        simulator.close()
    source = f"drawn: road {seed} at {s:g} m, {lateral:g} m right of its middle"
    return Observation.of_camera(picture, instruction, source=source)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder of the observation")
    parser.add_argument("--seed", type=int, default=200_003, help="of the road (default: %(default)s, never trained)")
    parser.add_argument("--behaviour", choices=sorted(CANONICAL), default="left", help="(default: %(default)s)")
    parser.add_argument("--instruction", help="other words than the behaviour's")
    parser.add_argument("--metres", type=float, default=120.0, help="along the road (default: %(default)s)")
    parser.add_argument("--right", type=float, default=0.0, help="metres right of the middle (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        words = arguments.instruction or CANONICAL[arguments.behaviour]
        path = write_observation(arguments.out, observe(arguments.seed, words, arguments.metres, arguments.right))
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
