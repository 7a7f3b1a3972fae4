"""A generator step under torch.compile at its best: the card's fastest attention, autotuned products, a CUDA graph."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from gpu_modules import load_module, torch_operators
from gpu_roofline import ATTENTIONS, DTYPES, best_attention
from gpu_scene import INSTRUCTION, GpuScene, Report
from gpu_steps import OUTPUTS, GraphedStep, TorchStep
from gpu_timing import StreamClock, relative_l2
from gpu_torch_tick import TorchTick
from torch import nn

# The last that compiles is the strongest: autotuning tries Triton's products beside cuBLAS's
MODES = ("default", "max-autotune-no-cudagraphs")


def run(scene: GpuScene, report: Report) -> None:
    """Compiles, captures, and measures in turn with eager; each mode is an entry: compiling takes minutes."""
    dtype = scene.variant.rpartition("-")[2]
    kind = DTYPES[dtype]
    clock = StreamClock(scene.device)
    with torch.no_grad():
        name, attention = best_attention(scene, kind)
        report.put("attention", name)
        with torch_operators():
            und = load_module(scene.bundle, "und_prefill", scene.variant, dtype, scene.device, scene.size)
            others = {"gen_step": nn.Identity(), "vae_encoder": nn.Identity()}
            tick = TorchTick(scene.bundle, {"und_prefill": und, **others}, scene.device)
            inputs = tick.step_inputs(INSTRUCTION)
            tick.close()
            module = load_module(scene.bundle, "gen_step", scene.variant, dtype, scene.device, scene.size)
            eager = TorchStep(module, inputs)
            clock.run(eager.enqueue)
            expected = [value.float().cpu() for value in eager.outputs]
        ways: dict[str, Any] = {"torch eager, that attention": eager}
        kinds = {name: attention, "default": ATTENTIONS["default"]}
        for mode in MODES:
            for kind_name, kind_of_attention in kinds.items():
                with torch_operators(kind_of_attention):
                    torch._dynamo.reset()
                    work = partial(_compile, module, inputs, mode, clock, scene, ways, expected)
                    if report.attempt(f"compile {mode}, attention {kind_name}", work) is not None:
                        break
            with torch_operators(attention):
                report.put("ways", clock.measure({n: way.enqueue for n, way in ways.items()}, scene.rounds))


def _compile(
    module: Any, inputs: Any, mode: str, clock: StreamClock, scene: GpuScene, ways: dict[str, Any], expected: Any
) -> dict[str, Any]:
    """Adds the compiled module to `ways`; what compiling took, and its distance from eager."""
    compiled = torch.compile(module, mode=mode, dynamic=False, fullgraph=False)
    start = time.perf_counter()
    clock.run(lambda: compiled(**inputs))
    facts: dict[str, Any] = {"compile_s": round(time.perf_counter() - start, 1)}
    way: Any = GraphedStep(compiled, inputs, clock) if scene.device == "cuda" else TorchStep(compiled, inputs)
    clock.run(way.enqueue)
    outputs = [value.float().cpu() for value in way.outputs]
    facts["relative_l2_to_eager"] = {n: relative_l2(a, b) for n, a, b in zip(OUTPUTS, outputs, expected)}
    ways[f"torch.compile {mode}" + (", CUDA graph" if scene.device == "cuda" else "")] = way
    return facts
