"""Measuring how far a quantized model is from the original, on observations that calibration did not see."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Mapping, Sequence

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.quant.calibration.job import open_vae
from motedge.quant.calibration.result import CalibrationData
from motedge.quant.datasets.dataset import Dataset, Moment
from motedge.quant.fidelity.activations import ActivationObserver, spread_forwards
from motedge.quant.fidelity.chunk import chunk_error
from motedge.quant.fidelity.engines import Sides, choose_sides
from motedge.quant.fidelity.facts import collect_facts
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.loops import GEN, UND, LoopErrors, VelocityError, run_loops
from motedge.quant.fidelity.options import FidelityOptions
from motedge.quant.fidelity.report import FidelityReport
from motedge.quant.fidelity.verdict import judge
from motedge.quant.fidelity.weights import SiteError, weight_errors
from motedge.quant.parameters import SiteParameters
from motedge.quant.replay import RequestReader, encode_prompts, repeat_forward
from motedge.quant.source import torch_dtype
from motedge.quant.towers import open_tower
from motedge.runtime.comparison import Gate
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.request import GenInputs, SamplerSettings

__all__ = ["FidelityOptions", "measure_fidelity"]

# Forwards on which activations are looked at, about; every step and branch is among them
_ACTIVATION_FORWARDS = 8
_NO_TASKS = (
    "This is open-loop error: how far numbers moved. It does not predict task success; only runs of the task do."
)
_EMULATED = "Quantization was emulated in torch: the graphs themselves were not run."
_NO_LATENCY = "no target was named, and none is measured here"
_log = logging.getLogger(__name__)


def measure_fidelity(
    source: Bundle,
    quantized: Bundle | None,
    recipe_id: str,
    parameters: Mapping[str, Mapping[str, SiteParameters]],
    calibration: CalibrationData | None,
    dataset: Dataset | None,
    held_out: Sequence[Moment],
    options: FidelityOptions,
) -> FidelityReport:
    """Measures weights, and, with held-out observations, activations, velocities, the action chunk and the latent.

    Args:
        source: the unquantized bundle.
        quantized: the quantized one; None: emulation in torch alone.
        recipe_id: id of its recipe.
        parameters: graph -> site -> how it was quantized.
        calibration: where the statistics come from, for the record.
        dataset: where held-out observations are read.
        held_out: which; none: only weights are measured and nothing is judged.
        options: how, and the gate.

    Raises:
        BundleError: the two bundles are of different checkpoints; the quantized one lacks the recipe; the source is
            quantized itself.
        UsageError: onnxruntime was asked for and can't run the graphs.
    """
    start = time.perf_counter()
    if quantized is not None and _origin(quantized) != _origin(source):
        raise BundleError(
            "the quantized bundle was made from another checkpoint", fix="give the bundle that it was made from"
        )
    sides = choose_sides(source, quantized, recipe_id, parameters, options)
    _log.info("fidelity: weights")
    sites = weight_errors(source, parameters, torch_dtype(sides.dtype))
    loops: LoopErrors | None = None
    if dataset is not None and held_out:
        settings, requests = _requests(source, dataset, held_out, options)
        loops = run_loops(source, sides, requests, settings, lambda what: _log.info("fidelity: %s", what))
        sites = _with_activations(source, sides, sites, loops, requests, settings)
    chunk = None
    if loops is not None:
        embodiment = find_embodiment(str(source.manifest.policy.get("embodiment", "")))
        chunk = chunk_error(loops.actions, loops.reference_actions, embodiment)
    deciding = [] if loops is None or chunk is None else _deciding(loops, chunk.overall, options.gate)
    facts = collect_facts(sides, calibration, dataset, held_out, time.perf_counter() - start)
    return FidelityReport(
        recipe=recipe_id,
        verdict=judge(options.gate, deciding),
        sites=sites,
        velocities=[] if loops is None else loops.velocities,
        und_kv=None if loops is None else loops.und_kv,
        latent=None if loops is None else loops.latent,
        chunk=chunk,
        size=_sizes(source, quantized, sides),
        facts=facts,
        caveats=_caveats(source, calibration, sides),
        latency=options.latency or {"predicted_ms": None, "why": _NO_LATENCY},
    )


def _requests(
    source: Bundle, dataset: Dataset, held_out: Sequence[Moment], options: FidelityOptions
) -> tuple[SamplerSettings, list[GenInputs]]:
    reader = RequestReader(source, open_vae(source, options.compute, options.device))
    observations = (dataset.observation(moment) for moment in held_out)
    return reader.settings, [reader.read(seen, options.seed + index) for index, seen in enumerate(observations)]


def _with_activations(
    source: Bundle,
    sides: Sides,
    sites: list[SiteError],
    loops: LoopErrors,
    requests: Sequence[GenInputs],
    settings: SamplerSettings,
) -> list[SiteError]:
    options, dtype = sides.options, torch_dtype(sides.dtype)
    for graph in (UND, GEN):
        known = sides.parameters.get(graph, {})
        if not any(parameters.scheme.activation for parameters in known.values()):
            continue
        _log.info("fidelity: activations of %s", graph)
        tower = open_tower(source, graph, compute=options.compute, device=options.device)
        observer = ActivationObserver(tower.module, known, dtype)
        if graph == UND:
            encode_prompts(source, tower, requests, settings)
        else:
            for forward in spread_forwards(loops.forwards, _ACTIVATION_FORWARDS):
                repeat_forward(tower, forward)
        observer.close()
        others = [site for site in sites if site.graph != graph]
        sites = [*others, *observer.complete([site for site in sites if site.graph == graph])]
        del tower
        gc.collect()
    return sites


def _deciding(loops: LoopErrors, chunk: Figures, gate: Gate) -> list[tuple[str, Figures]]:
    def badness(entry: VelocityError) -> tuple[bool, float]:
        value = entry.teacher_forced.relative_l2
        return not entry.teacher_forced.passes(gate), math.inf if value is None else value

    worst = max(loops.velocities, key=badness)
    return [
        ("action chunk", chunk),
        ("final latent", loops.latent),
        (f"worst velocity ({worst.tensor}, step {worst.step}, {worst.branch})", worst.teacher_forced),
    ]


def _sizes(source: Bundle, quantized: Bundle | None, sides: Sides) -> dict[str, dict[str, int]]:
    found = {}
    for graph in sides.parameters:
        base = sides.followed(graph)
        if quantized is not None and base is not None:
            found[graph] = {
                "source_bytes": _bytes(source, graph, base),
                "quantized_bytes": _bytes(quantized, graph, f"{base}-{sides.recipe}"),
            }
    return found


def _bytes(bundle: Bundle, graph: str, variant: str) -> int:
    return sum(bundle.path(name).stat().st_size for name in bundle.variant(graph, variant).weights)


def _caveats(source: Bundle, calibration: CalibrationData | None, sides: Sides) -> list[str]:
    random = [note for note in source.manifest.notes if "random" in note]
    emulated = [_EMULATED] if sides.base is None else []
    data = [] if calibration is None else [f"Data: {calibration.rule}."]
    return [_NO_TASKS, *(f"{note[0].upper()}{note[1:]}." for note in random), *emulated, *data]


def _origin(bundle: Bundle) -> object:
    return bundle.manifest.model["checkpoint"]["fingerprint"]
