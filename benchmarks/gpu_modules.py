"""Our own torch modules of a bundle's graphs with the weights of its files: PyTorch doing the same maths.

Needs torch alone beside what reads the bundle: neither a checkpoint nor diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from motedge.bundle import Bundle
from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.presets import preset
from motedge.errors import BundleError
from motedge.export.modules import gen, und
from motedge.export.modules.layers import Precision
from motedge.export.modules.vae_encoder import VaeEncoder
from motedge.export.weights import DTYPES, checkpoint_key, constants_of

# ONNX element type -> how the file's bytes are read; bf16 as whole numbers, whose bits torch takes over
_READ = {
    1: (np.dtype("<f4"), torch.float32),
    10: (np.dtype("<f2"), torch.float16),
    16: (np.dtype("<u2"), torch.bfloat16),
}
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def load_module(bundle: Bundle, graph: str, variant: str, dtype: str, device: str, size: str = "full") -> nn.Module:
    """One graph's module on a device, computing in `dtype` with the values of the variant's files.

    Args:
        bundle: weights filled in.
        graph: "und_prefill", "gen_step" or "vae_encoder".
        variant: whose files are read, such as "fused-fp16".
        dtype: "fp32", "fp16" or "bf16"; another than the variant's is cast.
        device: "cuda" or "cpu".
        size: preset of the VAE, which the manifest does not hold.

    Raises:
        BundleError: the module has a weight that the files lack, or another shape.
    """
    with torch.device("meta"):
        module = _empty(bundle, graph, Precision("fused", DTYPES[dtype]), size)
    values, constants = dict(_weights(bundle, graph, variant)), constants_of(module)
    for path, owner in list(module.named_modules()):
        for name, empty in list(owner.named_parameters(recurse=False)):
            key = checkpoint_key(f"{path}.{name}" if path else name)
            # A scale of relu2 in the graph is the one that was found for these weights
            value = values.get(key, constants.get(key))
            if value is None or value.numel() != empty.numel():
                raise BundleError(
                    f"{graph}.{variant}: weight {key} does not fit the module",
                    expected=list(empty.shape),
                    got="none" if value is None else list(value.shape),
                )
            placed = value.reshape(empty.shape).to(device).to(empty.dtype)
            setattr(owner, name, nn.Parameter(placed, requires_grad=False))
    return module.eval()


def _empty(bundle: Bundle, graph: str, precision: Precision, size: str) -> nn.Module:
    """Not through motedge.export.graphs, which needs the exporter's packages."""
    model, (_, *grid) = bundle.manifest.model, bundle.manifest.shape_set["latent"]
    if graph == "vae_encoder":
        return VaeEncoder(preset(str(model["family"]), size).vae, precision, tuple(grid))
    config = ModelConfig.from_dict(model["config"])
    return gen.GenStep(config, precision, tuple(grid)) if graph == "gen_step" else und.UndPrefill(config, precision)


def _weights(bundle: Bundle, graph: str, variant: str) -> Iterator[tuple[str, Tensor]]:
    """Name -> value of every floating initializer; large ones stay in the file until they are copied to the device."""
    path = bundle.path(bundle.variant(graph, variant).file)
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        if tensor.data_type not in _READ:
            continue
        kind, dtype = _READ[tensor.data_type]
        where = {item.key: item.value for item in tensor.external_data}
        if where:
            data = _mapped(path.parent / where["location"], kind, int(where.get("offset", 0)), tuple(tensor.dims))
        else:
            data = numpy_helper.to_array(tensor).copy()
            if dtype is torch.bfloat16:
                data = data.view(np.uint16)
        flat = torch.from_numpy(np.ascontiguousarray(data))
        yield tensor.name, flat.view(torch.bfloat16) if dtype is torch.bfloat16 else flat


def _mapped(path: Path, kind: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> Any:
    # Copy on write: torch wants writable memory, and nobody writes
    return np.memmap(path, kind, "c", offset, shape)


def plain_rotation(x: Tensor, cos: Tensor, sin: Tensor, precision: Precision) -> Tensor:
    """Rotary embedding in torch's own operators: the exporter's operator is opaque to torch.compile."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@contextmanager
def torch_operators(attention: Attention | None = None) -> Iterator[None]:
    """Inside, the towers use torch's own rotary arithmetic and, where given, this attention for the generator."""
    before = gen.rotate, und.rotate, gen.attend
    gen.rotate = und.rotate = plain_rotation
    if attention is not None:

        def attend(q: Tensor, k: Tensor, v: Tensor, precision: Precision, *, causal: bool = False) -> Tensor:
            return attention(q, k, v)

        gen.attend = attend
    try:
        yield
    finally:
        gen.rotate, und.rotate, gen.attend = before
