"""Emulation: our torch modules with some projections replaced by what their quantized form computes.

The same numbers as the emitted graph, without emitting it: for sensitivity search, where thousands of variants are
tried, and for a report on a machine that can't run the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from motedge.errors import InternalError
from motedge.export.modules.layers import Linear
from motedge.quant.numerics.activation import fake_quantize
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters
from motedge.quant.sites import module_sites


class FakeQuantLinear(nn.Module):
    """y = q(x s) q(W / s) + b with values that are quantized and dequantized; computes in the weight's dtype."""

    def __init__(self, name: str, linear: Linear, parameters: SiteParameters, dtype: torch.dtype) -> None:
        """`dtype`: the floating type of the graph that is emulated, in which scales are kept."""
        super().__init__()
        self.parameters_of_site, self.dtype = parameters, dtype
        weight = quantize_weight(name, linear.weight, parameters, dtype).dequantize()
        self.weight, self.bias = nn.Parameter(weight.to(linear.weight.dtype), requires_grad=False), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y = fake_quantize(x, self.parameters_of_site, self.dtype) @ self.weight
        return y if self.bias is None else y + self.bias


@contextlib.contextmanager
def fake_quantized(
    module: nn.Module, parameters: Mapping[str, SiteParameters], dtype: torch.dtype
) -> Iterator[nn.Module]:
    """Replaces sites of a module for the time of a `with` block.

    Args:
        module: one of our torch modules, weights loaded.
        parameters: by site name.
        dtype: the floating type of the graph that is emulated.

    Yields:
        The same module.
    """
    sites = module_sites(module)
    owners = {id(layer): path for path, layer in module.named_modules()}
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for name, known in parameters.items():
            if name not in sites:
                raise InternalError(f"the module has no site {name}")
            linear = sites[name][1]
            parent, _, attribute = owners[id(linear)].rpartition(".")
            owner = module.get_submodule(parent)
            substitute = FakeQuantLinear(name, linear, known, dtype)
            setattr(owner, attribute, substitute)
            replaced.append((owner, attribute, linear))
        yield module
    finally:
        for owner, attribute, original in replaced:
            setattr(owner, attribute, original)
