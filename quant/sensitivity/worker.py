"""What every worker does: load the towers once, then measure one task after another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motedge.bundle import Bundle
from motedge.errors import ExportError
from motedge.export.torch_engine import TorchEngine
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.parameters import SiteParameters
from motedge.quant.replay import encode_prompts, open_loop, run_requests
from motedge.quant.sensitivity.layerwise import LayerwiseGen, LayerwiseUnd, own_tensor
from motedge.quant.sensitivity.measures import chunk_error, latent_error
from motedge.quant.sensitivity.sketch import Vector, pack, sketch
from motedge.quant.sensitivity.stepwise import SteppedEngine
from motedge.quant.sensitivity.tasks import MixtureTask, Records, SiteTask, StepTask, Task, mixture_id, site_id, step_id
from motedge.quant.sensitivity.workload import Workload
from motedge.quant.source import torch_dtype
from motedge.quant.towers import open_tower
from motedge.runtime.engine import Array
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.request import GenResult
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables

UND, GEN = "und_prefill", "gen_step"


@dataclass(frozen=True)
class WorkerSetup:
    """All that a worker needs, beside the bundle itself, which must be readable where it runs."""

    bundle: Path
    workload: Workload
    # Graph -> (site, scheme id) -> parameters
    parameters: Mapping[str, Mapping[tuple[str, str], SiteParameters]]
    # "fp32" or "bf16"
    compute: str
    # A torch device
    device: str


class Worker:
    """Measures tasks. Towers are loaded when first needed, and stay."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._bundle = Bundle.open(setup.bundle)
        self._dtype = torch_dtype(setup.compute)
        self._device = torch.device(setup.device)
        self._references = [
            tuple(
                own_tensor(entry.forward.outputs[name], torch.float32, self._device) for name in entry.forward.outputs
            )
            for entry in setup.workload.forwards
        ]

    def run(self, task: Task) -> Records:
        """Measures one task."""
        if isinstance(task, SiteTask):
            return self._site(task)
        try:
            if isinstance(task, MixtureTask):
                return {mixture_id(task.assignment): self._mixture(task)}
            return {step_id(task.schemes, task.step): self._step(task)}
        except (ExportError, NonFiniteError) as error:
            return {task.ids()[0]: {"impossible": error.what}}

    @cached_property
    def _gen_engine(self) -> TorchEngine:
        return open_tower(self._bundle, GEN, compute=self._setup.compute, device=self._setup.device)

    @cached_property
    def _und_engine(self) -> TorchEngine:
        return open_tower(self._bundle, UND, compute=self._setup.compute, device=self._setup.device)

    @cached_property
    def _gen(self) -> LayerwiseGen:
        inputs = [entry.forward.inputs for entry in self._setup.workload.forwards]
        return LayerwiseGen(self._gen_engine.module, inputs, self._dtype)  # type: ignore[arg-type]

    @cached_property
    def _prompts(self) -> dict[bytes, int]:
        """Numbers of the prompts of all forwards, by their tokens."""
        found: dict[bytes, int] = {}
        for entry in self._setup.workload.forwards:
            found.setdefault(entry.tokens.tobytes(), len(found))
        return found

    @cached_property
    def _und(self) -> LayerwiseUnd:
        tables = Tables.open(self._bundle)
        rotary = RotaryTable(tables.inv_freq(), self._bundle.manifest.model["config"])
        tokens: dict[bytes, Array] = {entry.tokens.tobytes(): entry.tokens for entry in self._setup.workload.forwards}
        prompts = [(tables.embeddings(tokens[key]), *rotary.text(tokens[key].size)) for key in self._prompts]
        return LayerwiseUnd(self._und_engine.module, prompts)  # type: ignore[arg-type]

    @cached_property
    def _plain_prompts(self) -> PromptCache:
        """K and V of the held-out requests' prompts, unquantized."""
        workload = self._setup.workload
        requests = [entry.inputs for entry in workload.held_out]
        return encode_prompts(self._bundle, self._und_engine, requests, workload.settings)

    def _site(self, task: SiteTask) -> Records:
        self._gen.stand_at(task.layer)
        if task.graph == UND:
            self._und.stand_at(task.layer)
        module = (self._und_engine if task.graph == UND else self._gen_engine).module
        records: Records = {}
        for scheme in task.schemes:
            parameters = {task.site: self._setup.parameters[task.graph][task.site, scheme]}
            try:
                with fake_quantized(module, parameters, self._dtype):
                    new_kv = self._new_kv() if task.graph == UND else {}
                    result: dict[str, Any] = self._velocity_errors(new_kv, task.layer)
            except (ExportError, NonFiniteError) as error:
                result = {"impossible": error.what}
            records[site_id(task.graph, task.site, scheme)] = result
        return records

    def _new_kv(self) -> dict[int, Tensor]:
        return {number: self._und.finish(number) for number in range(len(self._und))}

    def _velocity_errors(self, new_kv: Mapping[int, Tensor], first: int) -> dict[str, Any]:
        """Relative square error of each velocity over all forwards by their weights, as the generator is now.

        `new_kv`: by number of the prompt, K and V of the layers from `first` on; empty: they are as recorded. With the
        errors come the deviations themselves, sketched.
        """
        # Of vision and action: deviations, and the square of what they are relative to
        parts: tuple[list[Vector], list[Vector]] = ([], [])
        whole = [0.0, 0.0]
        forwards, weights = self._setup.workload.forwards, self._setup.workload.weights()
        for number, (entry, references) in enumerate(zip(forwards, self._references, strict=True)):
            und_kv = None
            if new_kv:
                above = new_kv[self._prompts[entry.tokens.tobytes()]]
                und_kv = torch.cat((self._gen.und_kv(number)[:first], above), dim=0)
            found = self._gen.finish(number, und_kv)
            # Vision whole, of actions the used channels
            for place, used in enumerate((slice(None), slice(entry.raw_dim))):
                reference = references[place][..., used].double()
                deviation = (found[place][..., used].double() - reference) * math.sqrt(weights[number])
                parts[place].append(deviation.flatten().cpu().numpy())
                whole[place] += weights[number] * float(reference.square().sum())
        return {
            **_relative("vision", np.concatenate(parts[0]), whole[0]),
            **_relative("action", np.concatenate(parts[1]), whole[1]),
        }

    def _mixture(self, task: MixtureTask) -> dict[str, Any]:
        und, gen = (self._chosen(graph, task.assignment.get(graph, {})) for graph in (UND, GEN))
        workload = self._setup.workload
        requests = [entry.inputs for entry in workload.held_out]
        # One after the other, so that one quantized copy of a tower is in memory at a time
        self._und.stand_at(0)
        with fake_quantized(self._und_engine.module, und, self._dtype):
            new_kv = self._new_kv() if und else {}
            prompts = encode_prompts(self._bundle, self._und_engine, requests, workload.settings)
        self._gen.stand_at(0)
        with fake_quantized(self._gen_engine.module, gen, self._dtype):
            errors = self._velocity_errors(new_kv, 0)
            loop = open_loop(self._bundle, self._gen_engine, prompts)
            results = run_requests(loop, requests, workload.settings)
            loop.close()
        # A mixture's own deviation serves nothing further
        kept = {name: errors[name] for name in ("vision", "action")}
        return {**kept, **self._result_errors(results)}

    def _step(self, task: StepTask) -> dict[str, Any]:
        parameters = self._chosen(GEN, task.schemes)
        engine = SteppedEngine(self._gen_engine, parameters, self._dtype, task.step)
        loop = open_loop(self._bundle, engine, self._plain_prompts)
        results = []
        for entry in self._setup.workload.held_out:
            engine.restart()
            results += run_requests(loop, [entry.inputs], self._setup.workload.settings)
        loop.close()
        return self._result_errors(results)

    def _result_errors(self, results: list[GenResult]) -> dict[str, Any]:
        """Errors of the held-out requests' results, one number each."""
        pairs = list(zip(results, self._setup.workload.held_out, strict=True))
        return {"chunk": [chunk_error(*pair) for pair in pairs], "latent": [latent_error(*pair) for pair in pairs]}

    def _chosen(self, graph: str, schemes: Mapping[str, str]) -> dict[str, SiteParameters]:
        return {site: self._setup.parameters[graph][site, scheme] for site, scheme in schemes.items()}


def _relative(name: str, deviation: Vector, whole: float) -> dict[str, Any]:
    """The error squared under `name`, and beside it the deviation; both relative."""
    error = float(np.square(deviation).sum()) / whole
    if not math.isfinite(error):
        raise NonFiniteError("the generator's velocity is not finite")
    return {name: error, f"{name}_deviation": pack(sketch(deviation / math.sqrt(whole)))}
