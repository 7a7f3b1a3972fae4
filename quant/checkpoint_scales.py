"""Scales that a quantized checkpoint brought along, as the export kept them in the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError

FILE = "calibration/checkpoint.json"
SCHEMA = "motedge.checkpoint-scales/v1"


@dataclass(frozen=True)
class SiteScales:
    """The scales of one projection: value = code * scale."""

    weight_scale: float
    # None where the checkpoint has none: only its weights are quantized
    input_scale: Optional[float]


def read_checkpoint_scales(bundle: Bundle) -> Optional[dict[str, SiteScales]]:
    """Site -> scales; None if the bundle was not made from a quantized checkpoint.

    Raises:
        BundleError: the file was changed, has another schema, or a scale is not a positive number.
    """
    if FILE not in bundle.manifest.files:
        return None
    bundle.check_files([FILE])
    raw = bundle.read_json(FILE)
    scales = raw.get("scales")
    if raw.get("schema") != SCHEMA or not isinstance(scales, Mapping):
        raise BundleError(f"{FILE} has another schema", expected=SCHEMA, got=raw.get("schema"), fix="export again")
    return {name: _site(name, entry) for name, entry in scales.items()}


def _site(name: str, entry: Any) -> SiteScales:
    scales = (entry.get("weight_scale"), entry.get("input_scale")) if isinstance(entry, Mapping) else (None, None)
    for value in scales:
        wrong = not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0
        if wrong and not (value is None and scales[0] is not None):
            raise BundleError(f"{FILE}: a scale of {name} is not a positive number", got=value, fix="export again")
    weight, own = scales
    return SiteScales(float(weight or 0), None if own is None else float(own))
