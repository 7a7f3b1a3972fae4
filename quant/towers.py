"""A bundle's graphs as torch modules behind the runtime's Engine protocol, for calibration and for comparison.

They run the fused dialect: torch has fast attention and norms of its own, so a tower on a CPU takes a fraction of the
primitive graph's time.
"""

from __future__ import annotations

import torch
from torch import nn

from motedge.bundle import Bundle
from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.vae_config import VaeConfig
from motedge.errors import BundleError, closest
from motedge.export.modules.gen import GenStep
from motedge.export.modules.layers import Precision
from motedge.export.modules.und import UndPrefill
from motedge.export.modules.vae_encoder import VaeEncoder
from motedge.export.torch_engine import TorchEngine
from motedge.quant.source import BundleWeights, load_weights, torch_dtype

GRAPHS = ("und_prefill", "gen_step", "vae_encoder")


def open_tower(bundle: Bundle, graph: str, *, compute: str = "fp32", device: str = "cpu") -> TorchEngine:
    """Loads one graph's torch module with the bundle's weights.

    Args:
        bundle: an unquantized bundle.
        graph: "und_prefill", "gen_step" or "vae_encoder".
        compute: "fp32" or "bf16", the type of weights and activations.
        device: "cpu", or a torch device such as "cuda:0".

    Returns:
        An engine whose arrays are fp32 on the host, whatever it computes in. Its `module` may be changed in place.

    Raises:
        BundleError: no such graph, a missing file, or a graph that is quantized already.
    """
    weights = BundleWeights.open(bundle, graph)
    with torch.device("meta"):
        module = _empty(bundle, graph, weights, Precision("fused", torch_dtype(compute)))
    return TorchEngine(load_weights(module, weights).to(device), bundle.contract(graph), torch_dtype(compute))


def _empty(bundle: Bundle, graph: str, weights: BundleWeights, precision: Precision) -> nn.Module:
    rows, columns = (int(size) for size in bundle.manifest.shape_set["latent"][1:])
    if graph == "vae_encoder":
        return VaeEncoder(_vae_config(weights), precision, (rows, columns))
    config = ModelConfig.from_dict(bundle.manifest.model["config"])
    if graph == "und_prefill":
        return UndPrefill(config, precision)
    if graph == "gen_step":
        return GenStep(config, precision, (rows, columns))
    raise BundleError(f"there is no torch module of graph {graph!r}", fix=closest(graph, GRAPHS))


def _vae_config(weights: BundleWeights) -> VaeConfig:
    """What the encoder's module needs, read off its graph: the manifest has no VAE configuration."""
    mean = weights.tensor("latents_mean").flatten()
    std = 1.0 / weights.tensor("latents_inverse_std").flatten()
    base = weights.shape("encoder.conv_in.weight")[0]
    return VaeConfig(base, base, len(mean), tuple(mean.tolist()), tuple(std.tolist()))
