"""Where a report comes from: model, data, engine, versions, machine. No host name and no path of a machine."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import motedge
from motedge.bundle import Bundle
from motedge.doctor.host import examine_host
from motedge.doctor.requirements import installed_version
from motedge.quant.calibration.result import CalibrationData
from motedge.quant.datasets.dataset import Dataset, Moment
from motedge.quant.fidelity.engines import Sides

_VERSIONS = ("torch", "onnx", "onnxruntime", "nvidia-modelopt", "numpy")


def collect_facts(
    sides: Sides,
    calibration: CalibrationData | None,
    dataset: Dataset | None,
    held_out: Sequence[Moment],
    seconds: float,
) -> dict[str, Any]:
    """Everything a reader must know to repeat the measurement, as JSON."""
    source, options = sides.source, sides.options
    model = source.manifest.model
    versions = {name: version for name in _VERSIONS if (version := installed_version(name))}
    return {
        "model": {name: model.get(name) for name in ("family", "variant", "checkpoint")},
        "embodiment": source.manifest.policy.get("embodiment"),
        "bundles": {
            "source": source.root.resolve().name,
            "quantized": None if sides.quantized is None else sides.quantized.root.resolve().name,
        },
        "recipe": _recipe(sides),
        "shape_set": source.manifest.shape_set.get("name"),
        "engine": sides.engine,
        "compute": options.compute if sides.base is None else sides.dtype,
        "noise_seeds": [options.seed + number for number in range(len(held_out))] if dataset else [],
        "data": _data(calibration, dataset, held_out),
        "machine": {"cpu": examine_host(Path.cwd()).cpu, "device": options.device, "threads": options.threads},
        "versions": {"motedge": motedge.__version__, **versions, "python": platform.python_version()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def _recipe(sides: Sides) -> dict[str, Any]:
    """What the quantized graphs say of their recipe; without them, its id alone is known."""
    known: dict[str, Any] = {}
    for graph in sides.parameters if sides.quantized else ():
        known = known or _said_by(sides.quantized, graph, sides.recipe)
    return {"id": sides.recipe, "revision": known.get("revision"), "fingerprint": known.get("fingerprint")}


def _said_by(bundle: Bundle | None, graph: str, recipe: str) -> dict[str, Any]:
    variants = () if bundle is None else bundle.graph(graph).variants.values()
    found = [variant.facts.get("quantization") for variant in variants if variant.recipe == recipe]
    return dict(found[0]) if found and found[0] else {}


def _data(
    calibration: CalibrationData | None, dataset: Dataset | None, held_out: Sequence[Moment]
) -> dict[str, Any] | None:
    """What calibrated, and what was measured on."""
    if calibration is None and dataset is None:
        return None
    measured = None
    if dataset is not None:
        measured = {"dataset": dataset.name, "kind": dataset.kind, "fingerprint": dataset.fingerprint()}
    facts: dict[str, Any] = {}
    if calibration is not None:
        facts = {
            "dataset": calibration.dataset,
            "kind": calibration.kind,
            "fingerprint": calibration.fingerprint,
            "rule": calibration.rule,
            "calibration": [list(pair) for pair in calibration.calibration],
            "forwards": dict(calibration.forwards),
            "settings": dict(calibration.settings),
            "notes": list(calibration.notes),
        }
    elif dataset is not None and measured is not None:
        facts = {**measured, "rule": "nothing was calibrated", "calibration": [], "notes": list(dataset.notes)}
    moments = [[moment.group, moment.index] for moment in held_out] if dataset is not None else []
    return {**facts, "held_out": moments, "measured_on": measured}
