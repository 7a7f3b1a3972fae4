"""Which simulator this is: another version makes other roads, other physics and other pictures of the same seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from motedge.errors import HostError, MissingPackageError

PINNED = {"gymnasium": "1.4.0", "box2d": "2.3.10", "pygame": "2.6.1"}
GOLDEN = Path(__file__).with_name("golden.json")
_SEED = 200_000
# Sines differ in their last bits from one C library to the next; other rules differ by metres and whole colours
_NEAR_M, _NEAR_LEVELS = 0.02, 2.0


def installed() -> dict[str, str]:
    """Versions of what the simulator is made of; "none" where it is not installed."""
    found = {}
    for name in PINNED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def check_versions() -> None:
    """Of the packages' names alone; quick, for the start of every program.

    Raises:
        MissingPackageError: one is not installed.
        HostError: one is of another version.
    """
    found = installed()
    missing = [name for name, version in found.items() if version == "none"]
    if missing:
        raise MissingPackageError(missing[0], extra="drive", purpose="to make roads and drive on them")
    if found != PINNED:
        raise HostError(
            "the road's simulator has other versions",
            expected=_words(PINNED),
            got=_words(found),
            why="another version makes other roads and other physics of the same seed: its figures can't be compared",
            fix=f"pip install {' '.join(f'{name}=={version}' for name, version in PINNED.items())}",
        )


def fingerprint() -> dict[str, Any]:
    """What one seed's road, its first picture and two seconds of driving on it are, in few numbers."""
    from examples.train_small.road.simulator import Simulator

    simulator = Simulator()
    simulator.reset(_SEED, s=50.0, lateral=1.0, askew=0.1, speed=5.0)
    picture = simulator.picture().astype(np.float64)
    way = []
    for step in range(100):
        simulator.drive(0.02 * (step // 50), 9.0)
        if step % 20 == 19:
            way.append(simulator.pose())
    track = simulator.track
    simulator.close()
    return {
        "tiles_m": np.round(track.points[:: len(track.points) // 24], 3).tolist(),
        "length_m": round(track.length_m, 3),
        "picture": np.round(picture.reshape(8, 12, 8, 12, 3).mean((1, 3)), 1).tolist(),
        "poses": np.round(way, 3).tolist(),
    }


def check_behaviour() -> None:
    """Holds the simulator against what it was when the data and the figures were made.

    Raises:
        HostError: it makes another road or picture, or drives otherwise.
    """
    golden, now = json.loads(GOLDEN.read_text(encoding="utf-8")), fingerprint()
    for name, near in (("tiles_m", _NEAR_M), ("length_m", _NEAR_M), ("poses", _NEAR_M), ("picture", _NEAR_LEVELS)):
        before, after = np.asarray(golden[name], np.float64), np.asarray(now[name], np.float64)
        off = float(np.abs(before - after).max()) if before.shape == after.shape else float("inf")
        if off > near:
            raise HostError(
                f"the simulator behaves differently: {name}",
                expected=f"as {GOLDEN.name} says, within {near:g}",
                got=f"{off:.3g} off, with {_words(installed())}",
                why="the checkpoint was trained on, and its figures measured with, the simulator as it was then",
                fix=f"install {_words(PINNED)}",
            )


def _words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(fingerprint()) + "\n", encoding="utf-8")
