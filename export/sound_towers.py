"""How the generator's step with sound is put together: front, one traced layer repeated, back."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from motedge.bundle import Contract
from motedge.export.modules.gen_sound import GenStepSound
from motedge.export.towers import inner, start_assembly
from motedge.export.trace import Profile, trace
from motedge.export.variants import VariantSpec
from motedge.export.weights import constants_of

_NOT_FRONT = ("und_kv", "action_out_weight", "action_out_bias")
_BACK = ("vision_noisy", "action_noisy", "sound_noisy", "action_out_weight", "action_out_bias")


def assemble_gen_step_sound(module: GenStepSound, contract: Contract, variant: VariantSpec) -> ir.Model:
    """motedge.export.modules.gen_sound.GenStepSound on the meta device -> the graph."""
    settings, assembly = start_assembly(contract, variant)
    traced = _traced(contract.profile, module.front.grid.tokens_per_frame)
    settings = dataclasses.replace(settings, profile=traced)
    constants = constants_of(module)
    given, values = {spec.name: spec for spec in contract.inputs}, assembly.inputs
    front_names = [name for name in given if name not in _NOT_FRONT]
    tokens, cos, sin = inner("tokens", "N", "H"), inner("cos", "N", "R"), inner("sin", "N", "R")
    count = len(module.layers)
    front = trace(module.front, [given[name] for name in front_names], settings)
    layer = trace(module.layers[0], [inner("x", "N", "H"), cos, sin, inner("und_kv", 1, 2, "K", "U", "D")], settings)
    back = trace(module.back, [tokens, *(given[name] for name in _BACK)], settings)
    state, cos_value, sin_value = assembly.add(front, [values[name] for name in front_names])
    pairs = assembly.node("Split", [values["und_kv"]], count, axis=0, num_outputs=count)
    for index, pair in enumerate(pairs):
        (state,) = assembly.add(layer, [state, cos_value, sin_value, pair], f"layers.{index}.")
    outputs = assembly.add(back, [state, *(values[name] for name in _BACK)])
    assembly.set_constants(constants)
    return assembly.finish(outputs)


def _traced(profile: Profile, tokens_per_frame: int) -> Profile:
    """The part of a profile that torch.export can trace: it takes 0 and 1 for constants, and N is a sum of the others.

    The operators are the same for smaller sizes.
    """
    low = {letter: max(2, profile[letter][0]) for letter in ("T", "A", "J")}
    low["N"] = low["T"] * tokens_per_frame + low["A"] + low["J"]
    return {letter: (low.get(letter, span[0]), *span[1:]) for letter, span in profile.items()}
