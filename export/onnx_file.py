"""Writing an ONNX file whose weights lie in external data files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from motedge.errors import InternalError
from motedge.export.assembly import IR_TYPES
from motedge.export.weights import DTYPE_NAMES, WeightSlot
from motedge.files import atomic_open

WEIGHTS_FOLDER = "weights"


def attach_weights(model: ir.Model, slots: Iterable[WeightSlot]) -> None:
    """Points every initializer without a value at its slot; the layout is kept as metadata of the tensor."""
    waiting = {name: value for name, value in model.graph.initializers.items() if value.const_value is None}
    for slot in slots:
        value = waiting.pop(slot.spec.name, None)
        if value is None:
            raise InternalError(f"the graph has no initializer {slot.spec.name}")
        value.const_value = ir.ExternalTensor(
            f"{WEIGHTS_FOLDER}/{slot.file}",
            offset=slot.offset,
            length=slot.spec.bytes,
            dtype=IR_TYPES[DTYPE_NAMES[slot.spec.dtype]],
            shape=ir.Shape(slot.spec.shape),
            name=slot.spec.name,
            metadata_props={"layout": slot.spec.layout},
        )
        value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
    if waiting:
        raise InternalError(f"weights without a slot: {sorted(waiting)}")


def write_model(model: ir.Model, target: Path, metadata: Mapping[str, str]) -> None:
    """Serializes the model atomically."""
    model.metadata_props.update(metadata)
    proto = ir.serde.serialize_model(model)
    with atomic_open(target) as stream:
        stream.write(proto.SerializeToString(deterministic=True))


def check_model(path: Path) -> None:
    """Runs onnx's full check, shape inference included, on a written file with its data in place."""
    onnx.checker.check_model(str(path), full_check=True)
