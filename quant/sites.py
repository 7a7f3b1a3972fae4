"""The sites of a graph: the projections that may be quantized, by the names that their MatMul nodes carry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from motedge.export.modules.layers import Linear
from motedge.export.weights import checkpoint_key

# Projections inside the layers of the towers (`layers.3.`) and of the vision encoders (Edge's
# `model.visual.encoder.layers.3.`, Qwen3-VL's `blocks.3.`). What lies before and after them (patches in and out,
# timestep MLP, action heads, embeddings, the projection to words, the vision encoders' mergers) and every norm stays in
# the graph's own type: under 3 % of the generator's weights, and the layers' errors all pass through them.
_IN_LAYERS = re.compile(r"(?:model\.visual\.encoder\.layers|layers|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Site:
    """One projection y = x W, W [in, out]."""

    # "layers.3.self_attn.add_q_proj": its weight's checkpoint key without ".weight"
    name: str
    # Layer number
    layer: int
    inputs: int
    outputs: int

    @property
    def key(self) -> str:
        """The checkpoint key of its weight, and the initializer's name."""
        return f"{self.name}.weight"

    @property
    def projection(self) -> str:
        """The name without the layer: "self_attn.add_q_proj"."""
        return _IN_LAYERS.sub("", self.name, count=1)

    @property
    def parameters(self) -> int:
        """Values of the weight."""
        return self.inputs * self.outputs


def module_sites(module: nn.Module) -> dict[str, tuple[Site, Linear]]:
    """The sites of one of our torch modules (which may be on the meta device), in order: name -> (site, layer)."""
    found = {}
    for path, owner in module.named_modules():
        name = checkpoint_key(path)
        match = _IN_LAYERS.match(name)
        if isinstance(owner, Linear) and match:
            inputs, outputs = owner.weight.shape
            found[name] = Site(name, int(match.group(1)), inputs, outputs), owner
    return found


def graph_sites(initializers: Iterable[tuple[str, tuple[int, ...]]]) -> list[Site]:
    """The sites of a graph from the names and shapes of its initializers: matrices inside the layers."""
    sites = []
    for name, shape in initializers:
        match = _IN_LAYERS.match(name)
        if match and name.endswith(".weight") and len(shape) == 2:
            sites.append(Site(name.removesuffix(".weight"), int(match.group(1)), *shape))
    return sites
