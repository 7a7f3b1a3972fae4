"""Attention that no dedicated kernel computes is let be decomposed; all other must stay fused.

IAttention is "not decomposable" by default: a graph whose attention has no kernel is refused. That is right for the
towers, where written-out scores would take hundreds of megabytes, and wrong for the VAE's one block, which is of one
head as wide as its channels (640).
"""

from __future__ import annotations

from typing import Any

from motedge.runtime.backends.tensorrt.versions import FUSED
from motedge.targets.builders.trt.library import Library

# Measured with TensorRT-RTX 1.7.1, bf16 and fp16, for SM 8.6, 8.9 and 12.0: one head is refused at any width; two or
# more are taken at 64, 128 and 256, refused at 640
_LEAST_HEADS, _WIDEST_HEAD = 2, 256
_INPUT = "ATTENTION_INPUT"


def allow_decomposition(library: Library, network: Any) -> list[str]:
    """Marks the attention that has no kernel as decomposable; says which, for build.json."""
    if not library.row.takes(FUSED):
        return []
    notes = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name != _INPUT:
            continue
        # The bindings give every layer as its base class; this is their way to the derived one
        layer.__class__ = library.api.IAttentionInputLayer
        _, heads, _, width = tuple(layer.attention.get_input(0).shape)
        if heads < _LEAST_HEADS or width > _WIDEST_HEAD:
            layer.attention.decomposable = True
            notes.append(f"{layer.name}: decomposed, since no kernel computes {heads} head(s) of {width}")
    return notes
