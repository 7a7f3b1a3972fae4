"""In which number format each layer of a parsed network computes, against what was asked: needs no GPU.

A strongly typed network says the types of all its tensors before anything is built, so that a layer that fell back to
fp32 (a Cast in the wrong place, a recipe that missed its MatMul) shows here. What the builder then fuses may round less
often, never to a wider type.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

# Layers that do the arithmetic which types are chosen for
COMPUTE = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM", "ATTENTION_INPUT")
# TensorRT's DataType -> names of this project
TYPES = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "FP8": "fp8",
    "INT8": "int8",
    "INT4": "int4",
    "FP4": "nvfp4",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4, "nvfp4": 4}
_MATMUL = "/MatMul"
# Between a DequantizeLinear and the layer that uses it, and without effect on the values
_TRANSPARENT = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")


class NetworkTypes:
    """The operands' types of every computing layer of a network."""

    def __init__(self, network: Any) -> None:
        self.layers = [network.get_layer(index) for index in range(network.num_layers)]
        self._producers = {tensor.name: layer for layer in self.layers for tensor in _outputs(layer)}

    def summary(self) -> dict[str, Any]:
        """Number of layers by kind, and of computing ones by their operands' types. JSON."""
        kinds = collections.Counter(layer.type.name.lower() for layer in self.layers)
        types = collections.Counter(f"{kind} {' x '.join(got)}" for _, kind, got in self.computing())
        return {
            "source": "the parsed network: an engine can be asked only where its GPU is",
            "count": len(self.layers),
            "kinds": dict(kinds.most_common()),
            "computing": dict(types.most_common()),
        }

    def computing(self) -> Iterator[tuple[str, str, tuple[str, str]]]:
        """Name, kind, and types of the first two operands (activations, weights) of each computing layer."""
        for layer in self.layers:
            kind = layer.type.name
            if kind in COMPUTE:
                operands = [self._stored(layer.get_input(index)) for index in range(min(2, layer.num_inputs))]
                # A convolution's kernel may be the layer's own and no tensor: of its input's type
                yield layer.name, kind.lower(), (operands[0], operands[-1])

    def raised(self, dtype: str, asked: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
        """Computing layers with an operand wider than asked.

        Args:
            dtype: the graph's own type: what is asked of layers that the recipe does not name.
            asked: projection -> types of its activations and weight.
        """
        found = []
        for name, kind, got in self.computing():
            site = name[: -len(_MATMUL)] if name.endswith(_MATMUL) else name
            wanted = asked.get(site, (dtype, dtype))
            if any(BITS.get(g, 0) > BITS.get(w, 32) for g, w in zip(got, wanted)):
                found.append(
                    {
                        "layer": name,
                        "kind": kind,
                        "asked": " x ".join(wanted),
                        "got": " x ".join(got),
                        "where": "the graph says so",
                    }
                )
        return found

    def missing(self, asked: Mapping[str, tuple[str, str]]) -> list[str]:
        """Projections that the recipe names and the network has not."""
        known = {layer.name for layer in self.layers}
        return [site for site in asked if site + _MATMUL not in known]

    def _stored(self, tensor: Any) -> str:
        """The type of an operand as it is stored: behind a DequantizeLinear, the quantized one."""
        for _ in range(len(_TRANSPARENT) + 1):
            producer = self._producers.get(tensor.name)
            if producer is None:
                break
            if producer.type.name == "DEQUANTIZE":
                return _type_name(producer.get_input(0))
            if producer.type.name not in _TRANSPARENT:
                break
            tensor = producer.get_input(0)
        return _type_name(tensor)


def _outputs(layer: Any) -> list[Any]:
    tensors = (layer.get_output(index) for index in range(layer.num_outputs))
    return [tensor for tensor in tensors if tensor is not None]


def _type_name(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return TYPES.get(name, name.lower())
