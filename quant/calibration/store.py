"""A calibration on disk: calibration.json says where it comes from, statistics.safetensors holds the numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from motedge.errors import BundleError
from motedge.files import atomic_path, write_json
from motedge.quant.calibration.result import Calibration, CalibrationData, SiteStatistics

SCHEMA = "motedge.calibration/v1"
FACTS, NUMBERS = "calibration.json", "statistics.safetensors"
_FIELDS = ("amax", "weight_amax", "awq_scale")


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes both files, the numbers first."""
    with atomic_path(folder / NUMBERS) as partial:
        save_file(_tensors(calibration), partial)
    facts = {"schema": SCHEMA, "origin": calibration.origin, "data": dataclasses.asdict(calibration.data)}
    write_json(folder / FACTS, facts)


def calibration_digest(calibration: Calibration) -> str:
    """Hex sha256 over all that `save_calibration` would write."""
    digest = hashlib.sha256(json.dumps([calibration.origin, dataclasses.asdict(calibration.data)]).encode())
    for key, value in sorted(_tensors(calibration).items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _tensors(calibration: Calibration) -> dict[str, Tensor]:
    return {
        f"{graph}/{name}/{field}": value.float().contiguous()
        for graph, sites in calibration.graphs.items()
        for name, known in sites.items()
        for field in _FIELDS
        if (value := getattr(known, field)) is not None
    }


def load_calibration(folder: Path) -> Calibration:
    """Reads a calibration.

    Raises:
        BundleError: no calibration there, another schema, or numbers that are damaged.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / NUMBERS)
    except FileNotFoundError as error:
        raise BundleError(
            f"there is no calibration in {folder}",
            expected=f"{FACTS} and {NUMBERS}",
            fix="calibration/RECIPE of a quantized bundle",
        ) from error
    except (ValueError, SafetensorError) as error:
        raise BundleError(f"the calibration in {folder} is damaged", got=str(error), fix="calibrate again") from error
    if facts.get("schema") != SCHEMA:
        raise BundleError(f"{folder / FACTS} has another schema", expected=SCHEMA, got=facts.get("schema"))
    raw = facts["data"]
    for field in ("calibration", "held_out"):
        raw[field] = tuple((str(group), int(index)) for group, index in raw[field])
    data = CalibrationData(**{**raw, "notes": tuple(raw["notes"])})
    return Calibration(facts["origin"], data, _statistics(folder, tensors))


def _statistics(folder: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, SiteStatistics]]:
    values: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        graph, name, field = key.split("/")
        if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
            raise BundleError(f"{folder / NUMBERS}: {key} holds what is no range", fix="calibrate again")
        values.setdefault(graph, {}).setdefault(name, {})[field] = tensor
    return {graph: {name: SiteStatistics(**v) for name, v in sites.items()} for graph, sites in values.items()}
