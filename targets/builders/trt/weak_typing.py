"""A weakly typed network: which types its layers may take. TensorRT 8.6 has no other, and tests use it.

With the flag FP16 alone, the library may run any layer in fp16, the squares of a norm among them, which overflow there.
"""

from __future__ import annotations

from typing import Any

from motedge.targets.builders.trt.library import Library

# Layers that compute. The rest moves values, or is of the shapes
_COMPUTE = frozenset(
    {
        "ACTIVATION",
        "CONVOLUTION",
        "ELEMENTWISE",
        "MATRIX_MULTIPLY",
        "POOLING",
        "REDUCE",
        "SOFTMAX",
        "UNARY",
    }
)


def set_weak_types(library: Library, network: Any, config: Any, dtype: str) -> list[str]:
    """Lets an fp16 graph compute in fp16 where it says so, and holds its fp32 layers in fp32.

    Args:
        library: nothing is done where its networks are strongly typed.
        network: parsed.
        config: gets the flags.
        dtype: the graph's own floating type.

    Returns:
        What is to be noted in build.json.
    """
    if library.row.strongly_typed != "absent" or dtype == "fp32":
        return []
    api = library.api
    config.set_flag(api.BuilderFlag.FP16)
    # Preferred and not obeyed: a layer without a kernel for it falls back, with a warning, instead of failing the build
    config.set_flag(api.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    held = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name not in _COMPUTE or layer.get_output(0).dtype != api.DataType.FLOAT:
            continue
        layer.precision = api.DataType.FLOAT
        layer.set_output_type(0, api.DataType.FLOAT)
        held += 1
    return [f"weakly typed: {held} layers are held in fp32, in which the graph has them"]
