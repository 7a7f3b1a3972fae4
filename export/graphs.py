"""Which graphs there are, how each is made as a torch module, and from which component its weights come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from motedge.bundle import Contract
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.export import contracts
from motedge.export.modules.gen import GenStep
from motedge.export.modules.layers import MLP, Precision
from motedge.export.modules.und import UndPrefill
from motedge.export.modules.vae_encoder import VaeEncoder
from motedge.export.relu2 import Relu2Range, relu2_ranges
from motedge.export.shapes import ShapeSet
from motedge.export.towers import assemble_gen_step, assemble_und_prefill, assemble_whole
from motedge.export.variants import VariantSpec
from motedge.export.weights import DTYPES, load_module


@dataclass(frozen=True)
class GraphSpec:
    """One graph of the policy."""

    name: str
    contract: Callable[..., Contract]
    # "transformer" or "vae": the checkpoint's component that holds the weights
    component: str
    # "und", "gen", or None where no layer squares its activations
    tower: str | None
    build: Callable[[Checkpoint, Precision, ShapeSet], nn.Module]
    # Turns the module, on the meta device, into the graph, in the opset of the dialect
    assemble: Callable[[Any, Contract, VariantSpec], ir.Model]
    # Attribute of the checkpoint that the contract is made from
    config: str = "config"
    # The graph whose weight files this one reads, all or a part of them, beside what is its own; None: all is its own
    shares: GraphSpec | None = None

    def contract_of(self, checkpoint: Checkpoint, shapes: ShapeSet) -> Contract:
        """The graph's contract for one checkpoint and shape set."""
        return self.contract(getattr(checkpoint, self.config), shapes)

    def store(self, checkpoint: Checkpoint) -> TensorStore:
        """The component's tensors."""
        store: TensorStore = getattr(checkpoint, self.component)
        return store

    def relu2_ranges(self, checkpoint: Checkpoint, variant: VariantSpec) -> list[Relu2Range]:
        """The activation ranges that an fp16 variant needs; empty otherwise."""
        if self.tower is None or variant.dtype != "fp16":
            return []
        return relu2_ranges(checkpoint.config, self.store(checkpoint), self.tower)

    def empty_module(
        self, checkpoint: Checkpoint, shapes: ShapeSet, variant: VariantSpec, ranges: Sequence[Relu2Range] = ()
    ) -> nn.Module:
        """The module on the meta device: shapes and code, no weights."""
        with torch.device("meta"):
            module = self.build(checkpoint, Precision(variant.dialect, DTYPES[variant.dtype]), shapes)
        layers = [m for m in module.modules() if isinstance(m, MLP)]
        for layer, known in zip(layers, ranges, strict=False):  # the last und layer has no MLP
            layer.set_relu2_scale(known.scale)
        return module

    def module(self, checkpoint: Checkpoint, shapes: ShapeSet, variant: VariantSpec) -> nn.Module:
        """The module with its weights in memory, in eval mode."""
        ranges = self.relu2_ranges(checkpoint, variant)
        return load_module(self.empty_module(checkpoint, shapes, variant, ranges), self.store(checkpoint))


GRAPHS = {
    spec.name: spec
    for spec in (
        GraphSpec(
            "und_prefill",
            contracts.und_prefill,
            "transformer",
            "und",
            lambda checkpoint, precision, shapes: UndPrefill(checkpoint.config, precision),
            assemble_und_prefill,
        ),
        GraphSpec(
            "gen_step",
            contracts.gen_step,
            "transformer",
            "gen",
            lambda checkpoint, precision, shapes: GenStep(checkpoint.config, precision, shapes.grid),
            assemble_gen_step,
        ),
        GraphSpec(
            "vae_encoder",
            contracts.vae_encoder,
            "vae",
            None,
            lambda checkpoint, precision, shapes: VaeEncoder(checkpoint.vae_config, precision, shapes.grid),
            assemble_whole,
        ),
    )
}
