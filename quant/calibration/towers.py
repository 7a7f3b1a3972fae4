"""Running each tower on real requests while ModelOpt listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motedge.bundle import Bundle
from motedge.export.torch_engine import TorchEngine
from motedge.quant.calibration.awq import LayerInputs, layer_numbers, search_layer, walk_layers
from motedge.quant.calibration.observers import RangeObserver, require_ranges
from motedge.quant.calibration.options import CalibrationOptions, Needs
from motedge.quant.calibration.progress import Counter
from motedge.quant.calibration.state import CalibrationState
from motedge.quant.replay import BRANCHES, Forward, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.request import GenInputs, SamplerSettings
from motedge.runtime.rope import RotaryTable
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.tables import Tables

UND, GEN = "und_prefill", "gen_step"


def gen_forwards(policy: Mapping[str, Any], requests: int) -> dict[str, int]:
    """Forwards of the generator over some requests, by "<step> <branch>"."""
    return {f"{step} {branch}": requests for step, branch in _plan(sampler_settings(policy, {}))}


def calibrate_und(
    bundle: Bundle,
    und: TorchEngine,
    requests: Sequence[GenInputs],
    settings: SamplerSettings,
    missing: Needs,
    state: CalibrationState,
) -> PromptCache:
    """Encodes every prompt; ranges and AWQ scales of the reasoner go into `state`. Returns the prompts' K and V."""
    wanted = missing.ranges.get(UND, frozenset())
    observer = RangeObserver(UND, und.module, wanted)
    observer.place = "a prompt"
    try:
        prompts = encode_prompts(bundle, und, requests, settings)
    finally:
        observer.close()
    if wanted:
        state.ranges[UND] = observer.amax()
        require_ranges(UND, und.module, state.ranges[UND], wanted)
        state.save()
    searched = missing.awq.get(UND, frozenset()) - state.awq.get(UND, {}).keys()
    if searched:
        tables = Tables.open(bundle)
        rotary = RotaryTable(tables.inv_freq(), bundle.manifest.model["config"])
        xs, rest = [], []
        for tokens, _ in prompts.items():
            inputs = (tables.embeddings(tokens), *rotary.text(tokens.size))
            x, *angles = und.module.get_submodule("front")(*(_tensor(und, value) for value in inputs))
            xs.append(x)
            rest.append(tuple(angles))
        _search(UND, und, searched, xs, lambda index: rest, state)
    return prompts


def calibrate_gen(
    bundle: Bundle,
    gen: TorchEngine,
    requests: Sequence[GenInputs],
    settings: SamplerSettings,
    prompts: PromptCache,
    missing: Needs,
    state: CalibrationState,
    options: CalibrationOptions,
) -> None:
    """Runs the whole loop on every request; ranges and AWQ scales of the generator go into `state`."""
    wanted = missing.ranges.get(GEN, frozenset())
    searched = missing.awq.get(GEN, frozenset()) - state.awq.get(GEN, {}).keys()
    chosen = _spread(len(requests), len(_plan(settings)), options.awq_forwards) if searched else {}
    observer = RangeObserver(GEN, gen.module, wanted)
    observer.restore(state.ranges.get(GEN, {}))
    kept: list[Forward] = []
    heard: list[Forward] = []
    tap = TappedEngine(gen, heard.append)
    loop = open_loop(bundle, tap, prompts)
    first = state.done.get(GEN, 0) if wanted else len(requests)
    try:
        with Counter(len(requests), "observations denoised") as counter:
            for index, request in enumerate(requests):
                if index >= first or index in chosen:
                    observer.place = f"observation {index}"
                    run_requests(loop, [request], settings, tap)
                    kept += [heard[number] for number in chosen.get(index, ())]
                    heard.clear()
                if index >= first:
                    state.ranges[GEN], state.done[GEN] = observer.amax(), index + 1
                    state.save()
                counter.step()
    finally:
        observer.close()
        loop.close()
    if wanted:
        require_ranges(GEN, gen.module, state.ranges[GEN], wanted)
    if searched:
        _search_gen(gen, searched, kept, state)


def _search_gen(gen: TorchEngine, wanted: frozenset[str], forwards: Sequence[Forward], state: CalibrationState) -> None:
    names = [spec.name for spec in gen.contract.inputs]
    back = ("und_kv", "action_out_weight", "action_out_bias")
    front = [name for name in names if name not in back]
    xs, angles, keys = [], [], []
    for forward in forwards:
        with torch.no_grad():
            x, cos, sin = gen.module.get_submodule("front")(*(_tensor(gen, forward.inputs[name]) for name in front))
        xs.append(x)
        angles.append((cos, sin))
        keys.append(_tensor(gen, forward.inputs["und_kv"]).to(x.dtype))

    def rest(index: int) -> list[LayerInputs]:
        return [(*pair, key[index : index + 1]) for pair, key in zip(angles, keys, strict=True)]

    _search(GEN, gen, wanted, xs, rest, state)


def _search(
    graph: str, tower: TorchEngine, wanted: frozenset[str], xs: list[Tensor], rest: Any, state: CalibrationState
) -> None:
    layers = list(tower.module.get_submodule("layers").children())
    numbers = layer_numbers(tower.module, wanted)
    found = state.awq.setdefault(graph, {})
    with Counter(len(numbers), f"{graph}: layers searched by AWQ") as counter:

        def visit(index: int, inputs: list[Tensor]) -> None:
            if index in numbers:
                found.update(search_layer(layers[index], f"layers.{index}.", wanted, inputs, rest(index)))
                state.save()
                counter.step()

        walk_layers(layers[: max(numbers) + 1], xs, rest, visit)


def _plan(settings: SamplerSettings) -> list[tuple[int, str]]:
    """(step, branch) of every forward of one request, in the loop's order."""
    guidance = settings.guidance_plan()
    times = FlowSchedule(settings.steps, settings.shift).timesteps
    return [
        (step, branch)
        for step, t in enumerate(times)
        for branch in (BRANCHES if guidance.active(int(t)) else BRANCHES[:1])
    ]


def _spread(requests: int, forwards: int, count: int) -> dict[int, list[int]]:
    """`count` forwards over all requests, with every step and branch in turn: request -> numbers of forwards."""
    chosen: dict[int, list[int]] = {}
    for number in range(min(count, requests * forwards)):
        request = number % requests
        taken = chosen.setdefault(request, [])
        at = (number * forwards // count) % forwards
        while at in taken:
            at = (at + 1) % forwards
        taken.append(at)
    return chosen


def _tensor(tower: TorchEngine, value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).to(next(tower.module.parameters()).device)
