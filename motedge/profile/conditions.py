"""Under what conditions a profile was taken: machine, versions, bundle. What `--compare` holds against each other."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import motedge
from motedge.bundle import Bundle
from motedge.bundle.model_words import model_words
from motedge.doctor import examine
from motedge.files import sha256_file
from motedge.targets.detect import detect

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "tokenizers", "cuda-bindings", "pycuda")


def machine() -> dict[str, Any]:
    """The machine, as far as it tells."""
    report, found = examine(Path.cwd()), detect()
    host = report.host
    return {
        "system": host.system,
        "architecture": host.architecture,
        "cpu": host.cpu,
        "cores": host.cores,
        "usable_cores": host.usable_cores,
        "memory_bytes": host.memory_bytes,
        "gpus": [
            {"name": gpu.name, "driver": gpu.driver, "compute_capability": gpu.compute_capability}
            for gpu in report.gpus
        ],
        "board": report.jetson.model if report.jetson is not None else None,
        "l4t": report.jetson.l4t if report.jetson is not None else None,
        "target": found.target,
        "power_mode": found.clues.power_mode,
    }


def versions() -> dict[str, str]:
    """Of motedge, Python and the libraries that ticks go through; those that are installed."""
    from motedge.doctor.packages import engine_libraries
    from motedge.doctor.requirements import installed_version

    found = {"motedge": motedge.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        version = installed_version(name)
        if version is not None:
            found[name] = version
    found.update({name: version for name, version in engine_libraries().items() if version is not None})
    return found


def bundle_identity(root: Path) -> dict[str, Any]:
    """Which bundle it is: the manifest's hash stands for every file in it."""
    bundle = Bundle.open(root)
    manifest = bundle.manifest
    return {
        "name": root.resolve().name,
        "manifest_sha256": sha256_file(root / "manifest.json"),
        "model": f"{manifest.model.get('family')} {manifest.model.get('variant')}",
        "shape_set": manifest.shape_set.get("name"),
        "embodiment": manifest.policy.get("embodiment"),
    }


def bundle_words(identity: Mapping[str, Any]) -> str:
    """Model, embodiment and shape set of a bundle's identity; those that were recorded without embodiment lack it."""
    return f"{model_words(identity['model'], identity.get('embodiment'))}, shape set {identity['shape_set']}"


def device_key(device: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two profiles to be of one device: times of others can't be compared as if they were."""
    gpus = tuple(gpu.get("name") for gpu in device.get("gpus") or ())
    return device.get("architecture"), device.get("cpu"), device.get("usable_cores"), gpus, device.get("board")
