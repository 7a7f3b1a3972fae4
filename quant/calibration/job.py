"""Calibration: real observations through the real loop, one tower in memory at a time, resumable at every observation.

What is known already, from an earlier run on the same data, is not done again; another scheme adds what it lacks.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from motedge.bundle import Bundle
from motedge.files import PathLike
from motedge.quant.calibration.observers import require_modelopt
from motedge.quant.calibration.options import CalibrationOptions, Needs, needs_of
from motedge.quant.calibration.progress import Counter
from motedge.quant.calibration.result import Calibration, CalibrationData, SiteStatistics
from motedge.quant.calibration.state import CalibrationState, find_known
from motedge.quant.calibration.store import save_calibration
from motedge.quant.calibration.towers import calibrate_gen, calibrate_und, gen_forwards
from motedge.quant.datasets.dataset import Dataset, Moment
from motedge.quant.datasets.split import Split, split_moments
from motedge.quant.replay import RequestReader
from motedge.quant.source import BundleWeights
from motedge.quant.towers import open_tower
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine
from motedge.runtime.request import GenInputs, SamplerSettings

__all__ = ["CalibrationOptions", "Needs", "calibrate", "needs_of"]

# Above this many bytes of fp32 weights in one tower, bf16 is taken: half the memory, and the checkpoint's own type
_FP32_LIMIT = 4e9
UND, GEN, VAE = "und_prefill", "gen_step", "vae_encoder"
_log = logging.getLogger(__name__)


def calibrate(
    bundle: Bundle,
    dataset: Dataset,
    needs: Needs,
    work: Path,
    options: CalibrationOptions,
    earlier: PathLike | None = None,
) -> Calibration:
    """Finds out what is needed and not known yet.

    Args:
        bundle: an unquantized bundle.
        dataset: where observations come from.
        needs: sites, by graph.
        work: folder of the state, and of an earlier result on the same data.
        options: how.
        earlier: another folder with an earlier result.

    Raises:
        DataError: too few observations, or one that can't be read.
        ExportError: a site whose input is always zero, or not finite.
    """
    moments = dataset.moments()
    split = split_moments(moments, calibration=options.observations, held_out=options.held_out, seed=options.seed)
    origin = str(bundle.manifest.model["checkpoint"]["fingerprint"])
    data = _describe(bundle, dataset, split, options)
    known = find_known([work, *([Path(earlier)] if earlier else [])], origin, data)
    missing = _missing(needs, known)
    if missing.none:
        _log.info("calibration is up to date")
        return Calibration(origin, data, known)
    require_modelopt()
    state = CalibrationState.open(work, origin, data)
    run = _Run(bundle, dataset, split, options, compute_type(bundle, options), state)
    ranges, awq = run.towers(missing)
    result = Calibration(origin, data, _merge(bundle, known, ranges, awq))
    # Before the state goes: whatever comes after may be interrupted too
    save_calibration(work, result)
    state.remove()
    return result


def compute_type(bundle: Bundle, options: CalibrationOptions) -> str:
    """ "fp32" or "bf16": what the towers compute in."""
    if options.compute != "auto":
        return options.compute
    largest = 0
    for graph in (UND, GEN):
        weights = BundleWeights.open(bundle, graph)
        scale = 1 if weights.dtype == "fp32" else 2
        largest = max(largest, scale * sum(weights.bytes(name) for name in weights.names()))
    return "fp32" if largest <= _FP32_LIMIT else "bf16"


@dataclass(frozen=True)
class _Run:
    """One run of the towers."""

    bundle: Bundle
    dataset: Dataset
    split: Split
    options: CalibrationOptions
    compute: str
    state: CalibrationState

    def towers(self, missing: Needs) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]:
        """Ranges and AWQ scales, by graph and site."""
        settings, requests = self._requests()
        und = open_tower(self.bundle, UND, compute=self.compute, device=self.options.device)
        prompts = calibrate_und(self.bundle, und, requests, settings, missing, self.state)
        del und
        gc.collect()
        gen = open_tower(self.bundle, GEN, compute=self.compute, device=self.options.device)
        calibrate_gen(self.bundle, gen, requests, settings, prompts, missing, self.state, self.options)
        del gen
        # Modules hold reference cycles, and the mapped weights with them
        gc.collect()
        return self.state.ranges, self.state.awq

    def _requests(self) -> tuple[SamplerSettings, list[GenInputs]]:
        reader = RequestReader(self.bundle, open_vae(self.bundle, self.compute, self.options.device))
        requests = []
        with Counter(len(self.split.calibration), "observations read") as counter:
            for index, moment in enumerate(self.split.calibration):
                requests.append(reader.read(self.dataset.observation(moment), self.options.seed + index))
                counter.step()
        return reader.settings, requests


def open_vae(bundle: Bundle, compute: str, device: str) -> Engine:
    """vae_encoder through onnxruntime where the bundle has a variant for it, else as a torch module."""
    runnable = [name for name in ("primitive-fp32", "primitive-fp16") if name in bundle.graph(VAE).variants]
    if runnable and device == "cpu":
        return open_engine(bundle, VAE, variant=runnable[0])
    return open_tower(bundle, VAE, compute=compute, device=device)


def _describe(bundle: Bundle, dataset: Dataset, split: Split, options: CalibrationOptions) -> CalibrationData:
    policy = bundle.manifest.policy
    settings: dict[str, Any] = {name: policy.get(name) for name in ("steps", "shift", "guidance", "guidance_interval")}
    settings["seed"] = options.seed
    settings["compute"] = compute_type(bundle, options)
    settings["awq_forwards"] = options.awq_forwards
    return CalibrationData(
        dataset=dataset.name,
        kind=dataset.kind,
        fingerprint=dataset.fingerprint(),
        rule=split.rule,
        calibration=_pairs(split.calibration),
        held_out=_pairs(split.held_out),
        forwards=gen_forwards(policy, len(split.calibration)),
        settings=settings,
        notes=tuple(dataset.notes),
    )


def _pairs(moments: Sequence[Moment]) -> tuple[tuple[str, int], ...]:
    return tuple((moment.group, moment.index) for moment in moments)


def _missing(needs: Needs, known: Mapping[str, Mapping[str, SiteStatistics]]) -> Needs:
    def lacking(sites: Mapping[str, frozenset[str]], has: Any) -> dict[str, frozenset[str]]:
        return {
            graph: frozenset(name for name in names if not has(known.get(graph, {}).get(name)))
            for graph, names in sites.items()
        }

    return Needs(
        lacking(needs.ranges, lambda site: site is not None),
        lacking(needs.awq, lambda site: site is not None and site.awq_scale is not None),
    )


def _merge(
    bundle: Bundle,
    known: Mapping[str, Mapping[str, SiteStatistics]],
    ranges: Mapping[str, Mapping[str, Tensor]],
    awq: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, dict[str, SiteStatistics]]:
    merged = {graph: dict(sites) for graph, sites in known.items()}
    for graph, sites in ranges.items():
        weights = BundleWeights.open(bundle, graph)
        for name, amax in sites.items():
            rows = weights.tensor(f"{name}.weight").abs().amax(1).float()
            merged.setdefault(graph, {})[name] = SiteStatistics(amax, rows)
    for graph, scales in awq.items():
        for name, scale in scales.items():
            merged[graph][name] = dataclasses.replace(merged[graph][name], awq_scale=scale)
    return merged
