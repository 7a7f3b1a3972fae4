"""What `gpu_tick.py` measures on: a bundle with weights, one observation, and the sizes that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Bundle
from motedge.files import write_json
from motedge.runtime.policy import Observation
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.request import SamplerSettings

INSTRUCTION = "Put the red cup on the plate."
# A pose of the Franka arm in the middle of its workspace, rad; gripper as fraction closed
JOINTS_RAD = (0.0, -0.63, 0.0, -2.51, 0.0, 1.88, 0.0)
GRIPPER = 0.1
SEED = 7


@dataclass(frozen=True)
class GpuScene:
    """One bundle and request."""

    bundle: Bundle
    # Whose weights every way computes with
    variant: str
    # "cuda"; "cpu" in dry runs
    device: str
    # Preset of the VAE: "full", "tiny"
    size: str
    rounds: int

    @property
    def observation(self) -> Observation:
        """One image of noise, which no kernel can take a short cut through."""
        image = np.random.RandomState(SEED).randint(0, 256, (540, 640, 3)).astype(np.uint8)
        return Observation(JOINTS_RAD, GRIPPER, INSTRUCTION, image=image, source="drawn")

    @property
    def settings(self) -> SamplerSettings:
        """The bundle's policy."""
        return sampler_settings(self.bundle.manifest.policy, {})

    @property
    def always(self) -> SamplerSettings:
        """The same with guidance at every step."""
        return replace(self.settings, guidance_interval=None)

    @property
    def config(self) -> Mapping[str, Any]:
        """transformer/config.json."""
        config: Mapping[str, Any] = self.bundle.manifest.model["config"]
        return config

    def model_path(self, graph: str) -> Path:
        """The variant's ONNX file."""
        return self.bundle.path(self.bundle.variant(graph, self.variant).file)


@dataclass
class Report:
    """What a section has found so far, on disk after every entry: a section that is cut off leaves what it had."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: Any) -> None:
        """Adds or replaces an entry."""
        self.values[name] = value
        write_json(self.path, self.values)

    def attempt(self, name: str, work: Any) -> Any:
        """Runs `work`; its result becomes an entry, or its failure does, and the rest goes on."""
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - a library's failure is a finding here, whatever its type
            self.put(name, {"failed": f"{type(error).__name__}: {error}"[:2000]})
            return None
        self.put(name, value)
        return value

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """What a section left; empty where it left nothing."""
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found
