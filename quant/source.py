"""The weights of a bundle, read from the data files of one of its unquantized variants.

Quantization starts from a bundle, not from the checkpoint: the bundle is what has been checked, and it is enough. An
fp32 variant holds the checkpoint's values exactly, and so does a bf16 one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from motedge.bundle import Bundle
from motedge.errors import BundleError, InternalError
from motedge.export.weights import DTYPES, checkpoint_key, plan_weights
from motedge.quant.sites import Site, graph_sites

# Nearest to the checkpoint first
PREFERRED = ("primitive-fp32", "fused-bf16", "fused-fp16", "primitive-fp16")
_TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
}


class BundleWeights:
    """The initializers of one unquantized variant of a graph, by name; data files are mapped, not read."""

    def __init__(self, bundle: Bundle, graph: str, variant: str) -> None:
        """Checks sizes of the variant's files, not their content; BundleError if one is missing or of another size."""
        self.graph, self.variant = graph, variant
        model = bundle.check_variant(graph, variant, content=False)
        self._folder = model.parent
        proto = onnx.load(str(model), load_external_data=False)
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._maps: dict[Path, np.memmap[tuple[int], np.dtype[np.uint8]]] = {}

    @classmethod
    def open(cls, bundle: Bundle, graph: str) -> BundleWeights:
        """The variant whose weights are nearest to the checkpoint's; BundleError if every variant is quantized."""
        return cls(bundle, graph, best_variant(bundle, graph))

    @property
    def dtype(self) -> str:
        """ "fp32", "bf16" or "fp16": the type in which the layers' weights are held."""
        return self.variant.rpartition("-")[2]

    def names(self) -> list[str]:
        """Every initializer's name, in the graph's order."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an initializer."""
        return tuple(self._tensor(name).dims)

    def bytes(self, name: str) -> int:
        """Size of an initializer."""
        tensor = self._tensor(name)
        items = torch.Size(tensor.dims).numel()
        return items * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize

    def sites(self) -> list[Site]:
        """The projections that may be quantized."""
        return graph_sites((name, tuple(tensor.dims)) for name, tensor in self._tensors.items())

    def tensor(self, name: str) -> Tensor:
        """One initializer in its stored type and layout; not to be written to. BundleError for NaN or infinity."""
        proto = self._tensor(name)
        if proto.data_location != TensorProto.EXTERNAL:
            value = torch.from_numpy(np.array(numpy_helper.to_array(proto)))
        else:
            place = {entry.key: entry.value for entry in proto.external_data}
            data = self._map(self._folder / place["location"])
            start, length = int(place["offset"]), int(place["length"])
            value = torch.from_numpy(data[start : start + length]).view(_TORCH_TYPES[proto.data_type])
            value = value.reshape(tuple(proto.dims))
        if not torch.isfinite(value).all():
            raise BundleError(f"weight {name} of graph {self.graph!r} holds NaN or infinity", fix="export again")
        return value

    def _tensor(self, name: str) -> TensorProto:
        if name not in self._tensors:
            raise InternalError(f"graph {self.graph!r} has no weight {name}")
        return self._tensors[name]

    def _map(self, path: Path) -> np.memmap[tuple[int], np.dtype[np.uint8]]:
        if path not in self._maps:
            # Copy on write: torch wants writable memory, and nothing is written
            self._maps[path] = np.memmap(path, np.uint8, mode="c")
        return self._maps[path]


def best_variant(bundle: Bundle, graph: str) -> str:
    """The unquantized variant of a graph whose weights are nearest to the checkpoint's.

    Raises:
        BundleError: every variant is quantized already.
    """
    variants = bundle.graph(graph).variants
    plain = [name for name, entry in variants.items() if entry.recipe is None]
    for name in (*PREFERRED, *plain):
        if name in plain:
            return name
    raise BundleError(
        f"graph {graph!r} of {bundle.root} is quantized already",
        expected="a bundle with unquantized graphs, as motedge export writes it",
        got=", ".join(variants),
        why="quantizing what is quantized adds up the errors of both",
        fix="give the bundle that this one was made from",
    )


def load_weights(module: nn.Module, weights: BundleWeights) -> nn.Module:
    """Fills a module that was made on the meta device with a bundle's weights, cast to its types; in eval mode."""
    kept = {spec.name: spec.dtype for spec in plan_weights(module)}
    for path, owner in list(module.named_modules()):
        for name, empty in list(owner.named_parameters(recurse=False)):
            key = checkpoint_key(f"{path}.{name}" if path else name)
            value = weights.tensor(key).to(kept.get(key, empty.dtype))
            setattr(owner, name, nn.Parameter(value.reshape(empty.shape), requires_grad=False))
    return module.eval()


def torch_dtype(name: str) -> torch.dtype:
    """ "fp32" -> torch.float32, and so on."""
    return DTYPES[name]
