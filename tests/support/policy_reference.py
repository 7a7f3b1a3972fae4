"""Requests that a policy on a GPU must answer as the CPU does, and the CPU's answers in a file that travels.

    PYTHONPATH=.:tests/support python3 tests/support/policy_reference.py BUNDLE OUT.npz

Runs on Python 3.9.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from motedge.runtime.policy import Observation, Policy, load_policy
from motedge.runtime.request import SamplerSettings

# The exact one, which every machine has
VARIANT = "primitive-fp32"
CUP, DOOR = "Put the red cup on the plate.", "Open the door of the cupboard and leave it open."


@dataclass(frozen=True)
class Scene:
    """One request."""

    name: str
    instruction: str
    seed: int
    # Of SamplerSettings, where it differs from the bundle's
    changed: Mapping[str, Any]
    # Forwards of the generator that it takes; None: not fixed here
    forwards: Optional[int]

    def settings(self, policy: Policy) -> SamplerSettings:
        """The sampler's."""
        return replace(policy.settings, **self.changed)


# Guidance in the bundle's interval is active at the first of four steps
SCENES: Tuple[Scene, ...] = (
    Scene("interval", CUP, 1, {}, 5),
    Scene("always", CUP, 1, {"guidance_interval": None}, 8),
    Scene("no guidance", CUP, 1, {"guidance": 1.0}, 4),
    Scene("another prompt", DOOR, 1, {}, 5),
    Scene("another seed", CUP, 2, {}, 5),
    Scene("two steps", CUP, 1, {"steps": 2, "guidance_interval": None}, 4),
    Scene("six steps", CUP, 1, {"steps": 6, "guidance_interval": None}, 12),
)


def observation(instruction: str) -> Observation:
    """One image of noise and a pose in the middle of the arm's workspace."""
    image = np.random.RandomState(11).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    return Observation((0.0, -0.63, 0.0, -2.51, 0.0, 1.88, 0.0), 0.1, instruction, image=image, source="drawn")


def act(policy: Policy, scene: Scene) -> Any:
    """The chunk of a scene."""
    return policy.act(observation(scene.instruction), seed=scene.seed, settings=scene.settings(policy))


def make_reference(bundle: Path) -> Dict[str, Any]:
    """Scene -> actions, fp32, by onnxruntime on the CPU."""
    with load_policy(bundle, variant=VARIANT, threads=1) as policy:
        return {scene.name: act(policy, scene).actions for scene in SCENES}


def distance(got: Any, expected: Any) -> float:
    """Relative L2; NaN where something is not finite."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def closest_pair(reference: Mapping[str, Any]) -> float:
    """The smallest distance between two scenes: a tolerance must lie well below, or any answer would do."""
    values = list(reference.values())
    found: List[float] = [distance(a, b) for i, a in enumerate(values) for b in values[:i]]
    return min(found)


def main() -> int:
    """Writes the file."""
    bundle, out = Path(sys.argv[1]), Path(sys.argv[2])
    reference = make_reference(bundle)
    np.savez(out, **reference)
    sys.stdout.write(f"{len(reference)} scenes, the closest two {closest_pair(reference):.4f} apart\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
