"""The reasoner's graphs, und and vision_encoder: beside the policy's, exported when asked for."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from motedge.bundle import Contract
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.checkpoint.vision_config import SIGLIP2, VisionConfig
from motedge.errors import ExportError
from motedge.export import reasoner_contracts
from motedge.export.graphs import GRAPHS, GraphSpec
from motedge.export.modules.layers import Precision
from motedge.export.modules.reasoner import Reasoner
from motedge.export.modules.vision_qwen3 import QwenEncoder
from motedge.export.modules.vision_siglip2 import SiglipEncoder
from motedge.export.reasoner_towers import assemble_qwen, assemble_siglip, assemble_und
from motedge.export.shapes import ShapeSet
from motedge.export.variants import VariantSpec


@dataclass(frozen=True)
class ReasonerGraph(GraphSpec):
    """A graph whose contract follows from the configs of both the transformer and the vision encoder."""

    def contract_of(self, checkpoint: Checkpoint, shapes: ShapeSet) -> Contract:
        """The graph's contract; ExportError for a checkpoint without the vision encoder."""
        return self.contract(checkpoint, shapes)

    def store(self, checkpoint: Checkpoint) -> TensorStore:
        """The component's tensors; ExportError for a checkpoint without the vision encoder."""
        vision_of(checkpoint)
        return super().store(checkpoint)


def vision_of(checkpoint: Checkpoint) -> VisionConfig:
    """The vision encoder's config.

    Raises:
        ExportError: the checkpoint came without the vision encoder.
    """
    vision = checkpoint.vision_config
    if vision is None or checkpoint.vision_encoder is None:
        raise ExportError(
            f"{checkpoint.root} lacks the reasoner's vision encoder",
            expected="config.json with a vision_config, and vision_encoder/",
            why="the reasoner sees images through it",
            fix="fetch the whole checkpoint, or export without the reasoner",
        )
    return vision


def _encoder(checkpoint: Checkpoint, precision: Precision, shapes: ShapeSet) -> SiglipEncoder | QwenEncoder:
    vision = vision_of(checkpoint)
    return (SiglipEncoder if vision.model_type == SIGLIP2 else QwenEncoder)(vision, precision)


def _assemble_encoder(module: SiglipEncoder | QwenEncoder, contract: Contract, variant: VariantSpec) -> ir.Model:
    if isinstance(module, SiglipEncoder):
        return assemble_siglip(module, contract, variant)
    return assemble_qwen(module, contract, variant)


UND = ReasonerGraph(
    "und",
    lambda checkpoint, shapes: reasoner_contracts.und(checkpoint.config, vision_of(checkpoint)),
    "transformer",
    "und",
    lambda checkpoint, precision, shapes: Reasoner(checkpoint.config, precision),
    assemble_und,
    # All but the rest of the last layer, the final norm and the projection to words
    shares=GRAPHS["und_prefill"],
)
VISION_ENCODER = ReasonerGraph(
    "vision_encoder",
    lambda checkpoint, shapes: reasoner_contracts.vision_encoder(vision_of(checkpoint)),
    "vision_encoder",
    None,
    _encoder,
    _assemble_encoder,
)
# Group of motedge.export.extras -> its graphs
REASONER_EXTRAS: dict[str, tuple[GraphSpec, ...]] = {"reasoner": (UND, VISION_ENCODER)}
