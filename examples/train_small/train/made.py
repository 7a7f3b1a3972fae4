"""What a training was made with: machine, versions, settings, and how far each part came."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from examples.train_small.train.loop import TrainingLoop
from motedge.doctor.host import examine_host
from motedge.doctor.requirements import installed_version

_PACKAGES = ("motedge", "torch", "numpy", "gymnasium", "box2d")


def made_with(loops: Mapping[str, TrainingLoop], device: torch.device) -> dict[str, Any]:
    """JSON-ready. Seconds are those of the loops alone, without recordings, encoding and errors."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else examine_host(Path.cwd()).cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: installed_version(name) for name in _PACKAGES},
        "parts": {
            name: {"settings": asdict(loop.settings), "steps": loop.step, "seconds": round(loop.elapsed_s, 1)}
            for name, loop in loops.items()
        },
    }
