"""The catalogue of devices: a TOML file each in targets/data/, every figure with its source and a mark."""

from motedge.targets.catalog.files import load_target, releases, targets
from motedge.targets.catalog.model import (
    ARCHITECTURES,
    ENGINES,
    KINDS,
    MARKS,
    MATH_TYPES,
    Figure,
    PowerMode,
    Signs,
    SoftwareRow,
    Target,
)
from motedge.targets.catalog.precisions import Precision, legal_precisions, precisions

__all__ = [
    "ARCHITECTURES",
    "ENGINES",
    "KINDS",
    "MARKS",
    "MATH_TYPES",
    "Figure",
    "PowerMode",
    "Precision",
    "Signs",
    "SoftwareRow",
    "Target",
    "legal_precisions",
    "load_target",
    "precisions",
    "releases",
    "targets",
]
