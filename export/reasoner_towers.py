"""How the reasoner's graphs are put together: und and vision_encoder, one traced layer repeated."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from motedge.bundle import Contract
from motedge.export.modules.reasoner import Reasoner
from motedge.export.modules.vision_layers import BLOCK
from motedge.export.modules.vision_qwen3 import QwenEncoder
from motedge.export.modules.vision_siglip2 import SiglipEncoder
from motedge.export.towers import inner, start_assembly
from motedge.export.trace import trace
from motedge.export.variants import VariantSpec
from motedge.export.weights import constants_of


def assemble_und(module: Reasoner, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.reasoner.Reasoner on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    constants = constants_of(module)
    # Columns of the mask: slots of the buffer, then new tokens
    slots, new = contract.profile["P"], contract.profile["S"]
    width = (slots[0] + max(new[0], 2), slots[1] + new[1], slots[2] + new[2])
    settings = dataclasses.replace(settings, profile={**settings.profile, "W": width})
    x, cos, sin = inner("x", "S", "H"), inner("cos", "S", "R"), inner("sin", "S", "R")
    mask, past = inner("mask", "S", "W"), inner("past", 1, 2, "K", "P", "D")
    count = len(module.layers)
    front = trace(module.front, contract.inputs, settings)
    layer = trace(module.layers[0], [x, cos, sin, mask, past], settings)
    back = trace(module.back, [x], settings)
    hidden, *shared = assembly.add(front, list(assembly.inputs.values()))
    shared, features = shared[:3], shared[3:]
    buffer = assembly.inputs["past_kv"]
    pasts = assembly.node("Split", [buffer], count, axis=0, num_outputs=count)
    for part in pasts:
        part.shape, part.type = ir.Shape([1, *list(buffer.shape or ())[1:]]), buffer.type
    rows = []
    for index, part in enumerate(pasts):
        hidden, *made = assembly.add(layer, [hidden, *shared, part], f"layers.{index}.")
        rows.append(made)
        if index < len(features):
            before = hidden
            (hidden,) = assembly.node("Add", [before, features[index]])
            hidden.shape, hidden.type = before.shape, before.type
    outputs = assembly.add(back, [hidden])
    for parts in zip(*rows, strict=True):
        outputs += assembly.node("Concat", parts, axis=0)
    assembly.set_constants(constants)
    return assembly.finish(outputs)


def assemble_siglip(module: SiglipEncoder, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.vision_siglip2.SiglipEncoder on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    x = inner("x", 1, "G", BLOCK, "E")
    front = trace(module.front, contract.inputs, settings)
    layer = trace(module.layers[0], [x], settings)
    back = trace(module.back, [x], settings)
    (hidden,) = assembly.add(front, list(assembly.inputs.values()))
    for index in range(len(module.layers)):
        (hidden,) = assembly.add(layer, [hidden], f"{module.prefix}.{index}.")
    return assembly.finish(assembly.add(back, [hidden]))


def assemble_qwen(module: QwenEncoder, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.vision_qwen3.QwenEncoder on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    x, cos, sin = inner("x", 1, "G", BLOCK, "E"), inner("cos", "G", BLOCK, "R"), inner("sin", "G", BLOCK, "R")
    front = trace(module.front, contract.inputs, settings)
    block = trace(module.blocks[0], [x, cos, sin], settings)
    merger = trace(module.deepstack_merger_list[0], [x], settings)
    back = trace(module.back, [x], settings)
    hidden, *angles = assembly.add(front, list(assembly.inputs.values()))
    features: list[ir.Value] = []
    for index in range(len(module.blocks)):
        (hidden,) = assembly.add(block, [hidden, *angles], f"blocks.{index}.")
        if index in module.deepstack_indexes:
            features += assembly.add(merger, [hidden], f"deepstack_merger_list.{len(features)}.")
    outputs = assembly.add(back, [hidden])
    return assembly.finish([*outputs, *assembly.node("Concat", features, axis=0)])
