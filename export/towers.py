"""How the graphs are put together: und_prefill and gen_step from front, layers and back; vae_encoder in one piece."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
from torch import nn

from motedge.bundle import Contract, TensorSpec
from motedge.export.assembly import Assembly
from motedge.export.modules.gen import GenStep
from motedge.export.modules.und import UndPrefill
from motedge.export.trace import Profile, TraceSettings, trace
from motedge.export.variants import VariantSpec
from motedge.export.weights import constants_of

_INNER = "between two parts of the graph"


def assemble_und_prefill(module: UndPrefill, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.und.UndPrefill on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    constants = constants_of(module)
    cos, sin = inner("cos", "S", "R"), inner("sin", "S", "R")
    x = inner("x", "S", "H")
    layers = list(module.layers)
    front = trace(module.front, contract.inputs, settings)
    last = trace(layers[-1], [x, cos, sin], settings)
    hidden, cos_value, sin_value = assembly.add(front, list(assembly.inputs.values()))
    pairs = []
    if len(layers) > 1:
        layer = trace(layers[0], [x, cos, sin], settings)
        for index in range(len(layers) - 1):
            kv, hidden = assembly.add(layer, [hidden, cos_value, sin_value], f"layers.{index}.")
            pairs.append(kv)
    pairs += assembly.add(last, [hidden, cos_value, sin_value], f"layers.{len(layers) - 1}.")
    assembly.set_constants(constants)
    return assembly.finish(assembly.node("Concat", pairs, axis=0))


def assemble_gen_step(module: GenStep, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.gen.GenStep on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    traced = _traced_profile(contract.profile, module.front.grid.tokens_per_frame)
    settings = dataclasses.replace(settings, profile=traced)
    constants = constants_of(module)
    given, values = {spec.name: spec for spec in contract.inputs}, assembly.inputs
    front_names = [name for name in given if name not in ("und_kv", "action_out_weight", "action_out_bias")]
    back_names = ["vision_noisy", "action_noisy", "action_out_weight", "action_out_bias"]
    tokens, cos, sin = inner("tokens", "N", "H"), inner("cos", "N", "R"), inner("sin", "N", "R")
    count = len(module.layers)
    front = trace(module.front, [given[name] for name in front_names], settings)
    layer = trace(
        module.layers[0],
        [inner("x", "N", "H"), cos, sin, inner("und_kv", 1, 2, "K", "U", "D")],
        settings,
    )
    back = trace(module.back, [tokens, *(given[name] for name in back_names)], settings)
    state, cos_value, sin_value = assembly.add(front, [values[name] for name in front_names])
    pairs = assembly.node("Split", [values["und_kv"]], count, axis=0, num_outputs=count)
    for index, pair in enumerate(pairs):
        (state,) = assembly.add(layer, [state, cos_value, sin_value, pair], f"layers.{index}.")
    outputs = assembly.add(back, [state, *(values[name] for name in back_names)])
    assembly.set_constants(constants)
    return assembly.finish(outputs)


def assemble_whole(module: nn.Module, contract: Contract, variant: VariantSpec) -> ir.Model:
    """Any module on the meta device, traced in one piece."""
    settings, assembly = start_assembly(contract, variant)
    constants = constants_of(module)
    outputs = assembly.add(trace(module, contract.inputs, settings), list(assembly.inputs.values()))
    assembly.set_constants(constants)
    return assembly.finish(outputs)


def start_assembly(contract: Contract, variant: VariantSpec) -> tuple[TraceSettings, Assembly]:
    """Settings of a graph's traces, and the empty graph with its inputs."""
    settings = TraceSettings(variant.dtype, variant.traced_opset, contract.sizes, contract.profile)
    return settings, Assembly(contract, dtype=variant.dtype, opset=variant.traced_opset)


def _traced_profile(profile: Profile, tokens_per_frame: int) -> Profile:
    """The part of a profile that torch.export can trace: it takes 0 and 1 for constants, and N = T * tokens + A.

    The operators are the same for smaller sizes, as images (T = 1) and requests without actions (A = 0) have them.
    """
    low = {letter: max(2, profile[letter][0]) for letter in ("T", "A")}
    low["N"] = low["T"] * tokens_per_frame + low["A"]
    return {letter: (low.get(letter, span[0]), *span[1:]) for letter, span in profile.items()}


def inner(name: str, *dims: str | int) -> TensorSpec:
    """An input of a part that another part makes, in the graph's type."""
    return TensorSpec(name, dims, "graph", _INNER)
