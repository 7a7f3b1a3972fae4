"""From the spans of a tick to the time of each stage.

What is told apart depends on where the loop runs. On the host each step has its two forwards and the solver; on a GPU
the loop is one piece of work, timed by the GPU's own clock, and the host's stages are enqueueing and waiting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Optional

from motedge.profile.span_recorder import DEVICE, Recorded

TICK, DENOISE, HOST_TIME, BETWEEN = "tick", "denoise", "host", "between stages"
GPU = "GPU "
_STEP = re.compile(r"step (\d+) (cond|uncond|solver)")
# Order in which a tick goes through its stages; steps come where "steps" stands
_ORDER = ("reason", "tokenize", "ingest", "vae_encoder", "prefill", "rope", "noise", "bind", "steps", "enqueue", "wait")
# Stage -> the graph that it runs
_GRAPHS = {"vae_encoder": "vae_encoder", "prefill": "und_prefill"}


def stage_times(spans: Iterable[Recorded]) -> dict[str, float]:
    """Stage -> ms, of one tick, in order. Beside the stages themselves:

    tick: from observation to actions
    denoise: all steps together, host only
    GPU vae_encoder, GPU denoise: by the GPU's clock
    host: what no engine had a part in: the tick without forwards and encoders, or without the GPU's work
    between stages: the tick without all stages
    """
    found: dict[str, float] = {}
    tick_ms = 0.0
    for recorded in spans:
        if recorded.track == DEVICE:
            name = GPU + recorded.name
        elif recorded.depth == 0 and recorded.name == TICK:
            tick_ms += recorded.ms
            continue
        elif recorded.depth == 1:
            name = recorded.name
        else:
            continue
        found[name] = found.get(name, 0.0) + recorded.ms
    host = {name: ms for name, ms in found.items() if not name.startswith(GPU)}
    steps = [ms for name, ms in host.items() if _STEP.fullmatch(name)]
    if steps:
        found[DENOISE] = sum(steps)
    # Steps of a GPU are parts of its denoising
    on_device = [ms for name, ms in found.items() if name.startswith(GPU) and step_of(name[len(GPU) :]) is None]
    engines = sum(on_device) if on_device else sum(ms for name, ms in host.items() if graph_of(name) is not None)
    found[HOST_TIME] = max(0.0, tick_ms - engines)
    found[BETWEEN] = max(0.0, tick_ms - sum(host.values()))
    found[TICK] = tick_ms
    return {name: found[name] for name in in_order(found)}


def in_order(names: Iterable[str]) -> list[str]:
    """Stages as a tick goes through them, sums last."""

    def place(name: str) -> tuple[float, int, str]:
        step = step_of(name)
        if step is not None:
            number, part = step
            return _ORDER.index("steps") + 0.5, 3 * number + ("cond", "uncond", "solver").index(part), name
        if name in _ORDER:
            return _ORDER.index(name), 0, name
        on_gpu = step_of(name[len(GPU) :]) if name.startswith(GPU) else None
        if on_gpu is not None:
            return len(_ORDER) + 1.5, 3 * on_gpu[0] + ("cond", "uncond", "solver").index(on_gpu[1]), name
        last = ("decode", GPU + "vae_encoder", GPU + DENOISE, DENOISE, HOST_TIME, BETWEEN, TICK)
        return (len(_ORDER) + (last.index(name) if name in last else -0.5)), 0, name

    return sorted(names, key=place)


def step_of(name: str) -> Optional[tuple[int, str]]:
    """(Number of the step, "cond", "uncond" or "solver") of a stage within a step."""
    found = _STEP.fullmatch(name)
    return None if found is None else (int(found.group(1)), found.group(2))


def graph_of(name: str) -> Optional[str]:
    """The graph that a stage of the host runs; None: none."""
    step = step_of(name)
    if step is not None:
        return "gen_step" if step[1] != "solver" else None
    return _GRAPHS.get(name)


def is_sum(name: str) -> bool:
    """Whether a stage adds others up."""
    return name in (DENOISE, HOST_TIME, BETWEEN, TICK)


def graph_times(stages: Mapping[str, float], forwards: int, prefills: int) -> dict[str, list[float]]:
    """Graph -> ms of each of its runs in a tick, as far as they are told apart.

    Args:
        stages: of `stage_times`.
        forwards: runs of gen_step; on a GPU that does not tell its steps they share the loop's time, with the solver.
        prefills: runs of und_prefill; none where the prompts' K and V were kept.
    """
    if GPU + DENOISE in stages:
        steps = {name: step_of(name[len(GPU) :]) for name in stages if name.startswith(GPU)}
        runs = [stages[name] for name, step in steps.items() if step is not None and step[1] != "solver"]
        found = {"gen_step": runs or [stages[GPU + DENOISE] / forwards] * forwards} if forwards else {}
        if GPU + "vae_encoder" in stages:
            found["vae_encoder"] = [stages[GPU + "vae_encoder"]]
        return found
    found = {}
    for name, ms in stages.items():
        graph = graph_of(name)
        if graph is not None:
            found.setdefault(graph, []).append(ms)
    # What a step cache left out takes next to nothing, and is no run
    found["gen_step"] = sorted(found.get("gen_step", ()), reverse=True)[:forwards]
    found["und_prefill"] = [ms / prefills for ms in found.get("und_prefill", ()) for _ in range(prefills)]
    return {graph: runs for graph, runs in found.items() if runs}
