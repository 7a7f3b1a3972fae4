"""What a release of system software means for graphs: which dialect its TensorRT takes."""

from __future__ import annotations

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.versions import FUSED, PRIMITIVE, dialect_for
from motedge.targets.catalog import SoftwareRow, Target

UNSUPPORTED = "unsupported"


def dialects(row: SoftwareRow, target: Target) -> list[str]:
    """The preferred dialect for each engine library of a row, in the row's order, each once.

    Returns:
        "fused" and "primitive"; "unsupported" for a TensorRT that nothing is built for; empty where none is known.
    """
    found = []
    for version in filter(None, (row.tensorrt, *row.accepts)):
        try:
            found.append(dialect_for(version))
        except HostError:
            # A device may come with a TensorRT of another age
            found.append(UNSUPPORTED)
    if row.tensorrt_rtx is not None:
        # It has TensorRT 11's parser and builder
        found.append(FUSED)
    if target.engine == "onnxruntime":
        found.append(PRIMITIVE)
    return list(dict.fromkeys(found))
