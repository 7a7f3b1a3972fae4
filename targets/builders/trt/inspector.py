"""What a built engine says of its layers, and of the memory that it takes. Needs the GPU that it was built for.

The JSON differs between versions: 10.x has "Bindings" and one "Format/Datatype" a tensor, 11 has "I/O Tensors" and two
fields (NVIDIA's migration guide from 10.x to 11, engine inspector).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Optional

from motedge.targets.builders.trt.library import Library
from motedge.targets.builders.trt.precision import BITS

# Datatypes as the inspector writes them, at the end of "Row major linear FP16", or alone
_DATATYPE = re.compile(r"\b(FP32|Float|FP16|Half|BF16|BFloat16|FP8|Int8|Int4|FP4)\b", re.IGNORECASE)
_NAMES = {
    "float": "fp32",
    "half": "fp16",
    "bfloat16": "bf16",
    "fp4": "nvfp4",
}
# Kinds of layers in which a wide type costs time; the inspector names fused ones by what they hold
_COMPUTE = re.compile(r"gemm|matmul|matrix|conv|mha|attention|fmha|myelin|kgen", re.IGNORECASE)


def inspect_plan(library: Library, logger: Any, plan: Any) -> tuple[Optional[dict[str, Any]], Optional[int]]:
    """Layers and activation memory of a plan; (None, None) where it can't be loaded because its GPU is not here.

    Args:
        library: that built it.
        logger: an ILogger.
        plan: the serialised engine, a buffer.
    """
    runtime = library.api.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None, None
    text = engine.create_engine_inspector().get_engine_information(library.api.LayerInformationFormat.JSON)
    return parse_information(text, library.row.inspector_tensors), int(getattr(engine, library.row.device_memory))


def parse_information(text: str, tensors_key: str) -> dict[str, Any]:
    """The inspector's JSON as the `layers` of build.json.

    Args:
        text: what `get_engine_information` gives.
        tensors_key: "Bindings" or "I/O Tensors".
    """
    # 8.6 writes tabs and line breaks into its strings as they are
    raw = json.loads(text, strict=False)
    layers = [_layer(entry) for entry in raw.get("Layers", ())]
    tensors = raw.get(tensors_key, ())
    return {
        "source": "engine inspector",
        "count": len(layers),
        "tensors": [entry if isinstance(entry, str) else entry.get("Name", "") for entry in tensors],
        "detail": layers,
    }


def raised_in_engine(layers: Mapping[str, Any], dtype: str) -> list[dict[str, Any]]:
    """Computing layers of the engine whose inputs are wider than the graph's own type.

    The engine fuses layers and renames them, so that a projection's recipe can't be told; the graph's type can.
    """
    found = []
    for layer in layers.get("detail", ()):
        wide = [kind for kind in layer["inputs"] if BITS.get(kind, 0) > BITS[dtype]]
        if wide and _COMPUTE.search(f"{layer['kind']} {layer['tactic'] or ''}"):
            found.append(
                {
                    "layer": layer["name"],
                    "kind": layer["kind"],
                    "asked": dtype,
                    "got": " x ".join(layer["inputs"]),
                    "where": "the engine chose it",
                }
            )
    return found


def _layer(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        # Without detailed verbosity there are names alone
        return {"name": entry, "kind": "", "inputs": [], "outputs": [], "tactic": None}
    return {
        "name": entry.get("Name", ""),
        "kind": entry.get("LayerType", ""),
        "inputs": [_datatype(tensor) for tensor in entry.get("Inputs", ())],
        "outputs": [_datatype(tensor) for tensor in entry.get("Outputs", ())],
        "tactic": entry.get("TacticName") or entry.get("TacticValue"),
    }


def _datatype(tensor: Mapping[str, Any]) -> str:
    text = str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or "")
    found = _DATATYPE.search(text)
    name = found.group(1).lower() if found else text.lower()
    return _NAMES.get(name, name)
