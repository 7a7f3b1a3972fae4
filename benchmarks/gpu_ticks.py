"""The whole tick, image to actions: ours as a user runs it, and PyTorch eager doing the same maths, in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from gpu_modules import load_module, torch_operators
from gpu_scene import SEED, GpuScene, Report
from gpu_timing import relative_l2
from gpu_torch_tick import TorchTick
from interleave import Way, measure

from motedge.runtime.policy import Policy, load_policy
from motedge.runtime.request import SamplerSettings

GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
# Our error over that of PyTorch at the same precision, both against PyTorch in fp32
WORST_RATIO = 2.0


def run(scene: GpuScene, report: Report) -> None:
    """Both guidance settings on both sides; what a changed prompt costs."""
    dtype = scene.variant.rpartition("-")[2]
    with torch_operators():
        asked = {"interval": scene.settings, "always": scene.always}
        with torch_tick(scene, "fp32") as reference:
            expected = {name: reference.act(scene.observation, s, SEED) for name, s in asked.items()}
        with torch_tick(scene, dtype) as peer, open_policy(scene) as policy:
            ways = {f"torch eager {dtype}, {name}": Way(_peer(scene, peer, s)) for name, s in asked.items()}
            ways |= {f"motedge, {name}": Way(_ours(scene, policy, s)) for name, s in asked.items()}
            measured = measure(ways, scene.rounds, warmup=(*ways, *ways), parts=_parts)
            report.put("ticks", {name: entry.to_dict() for name, entry in measured.items()})
            report.put("parity", parity({name: _actions(entry.result) for name, entry in measured.items()}, expected))
            report.put(
                "launch", {n: e.result.details["launch"] for n, e in measured.items() if n.startswith("motedge")}
            )
            report.attempt("prompt_change", lambda: prompt_change(scene, policy))
            report.attempt("memory", lambda: policy.memory_bytes())


def parity(actions: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Relative L2 of each way's actions against PyTorch in fp32; whether ours is no further off than PyTorch's own."""
    errors = {name: relative_l2(value, expected[name.rpartition(", ")[2]]) for name, value in actions.items()}
    same = {}
    for name, error in errors.items():
        if name.startswith("motedge"):
            peer = next(e for n, e in errors.items() if n.startswith("torch") and n.endswith(name.rpartition(", ")[2]))
            same[name] = error <= WORST_RATIO * peer
    return {"relative_l2_to_fp32": errors, "worst_ratio": WORST_RATIO, "same_maths": same}


def prompt_change(scene: GpuScene, policy: Policy) -> list[dict[str, float]]:
    """Ticks with an instruction that was not seen before: the first, and the one after it."""
    found = []
    for word in ("blue", "yellow", "large green"):
        seen = replace(scene.observation, instruction=f"Put the {word} cup on the plate.")
        first, second = (policy.act(seen, seed=SEED).timings_ms for _ in range(2))
        found.append(
            {
                "first_ms": round(first["total_ms"], 3),
                "prefill_ms": round(first["prefill_ms"], 3),
                "second_ms": round(second["total_ms"], 3),
            }
        )
    return found


def open_policy(scene: GpuScene) -> Policy:
    """The bundle's policy as a user loads it; on the CPU in dry runs."""
    engine = "onnxruntime-cuda" if scene.device == "cuda" else "onnxruntime"
    return load_policy(
        scene.bundle.root, engine=engine, variant=scene.variant, check="size", seed=SEED, deterministic_seed=True
    )


@contextlib.contextmanager
def torch_tick(scene: GpuScene, dtype: str) -> Iterator[TorchTick]:
    """PyTorch's tick; its memory is given back afterwards."""
    modules = {g: load_module(scene.bundle, g, scene.variant, dtype, scene.device, scene.size) for g in GRAPHS}
    tick = TorchTick(scene.bundle, modules, scene.device)
    try:
        yield tick
    finally:
        tick.close()
        modules.clear()
        if scene.device == "cuda":
            torch.cuda.empty_cache()


def _peer(scene: GpuScene, tick: TorchTick, settings: SamplerSettings) -> Callable[[], Any]:
    seen = scene.observation
    return lambda: tick.act(seen, settings, SEED)


def _ours(scene: GpuScene, policy: Policy, settings: SamplerSettings) -> Callable[[], Any]:
    seen = scene.observation
    return lambda: policy.act(seen, seed=SEED, settings=settings)


def _parts(result: Any) -> Mapping[str, float]:
    parts: Mapping[str, float] = getattr(result, "timings_ms", {})
    return parts


def _actions(result: Any) -> Any:
    return getattr(result, "actions", result)
