"""Reruns a bundle's samples on this machine and holds the results against the recorded ones."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError
from motedge.runtime.backends import choose_variant, open_engine, require_recipe
from motedge.runtime.comparison import Comparison, Gate, compare
from motedge.runtime.contract_check import host_dtype
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Array, Engine, EngineOptions
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.samples import TICK, Sample
from motedge.runtime.tables import Tables
from motedge.runtime.tick import INPUTS, OUTPUTS, run_tick, settings_from_json

GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleReport:
    """What became of one sample."""

    # A graph's name, or "tick"
    sample: str
    # Variants that ran, by graph
    variants: Mapping[str, str]
    # Where the expected outputs come from
    reference: str
    # Why nothing was compared; None where something was
    none: Optional[str] = None
    gate: Optional[Gate] = None
    comparisons: tuple[Comparison, ...] = ()
    # Loading left out
    duration_ms: Optional[float] = None
    # A run that stopped on NaN or infinity, in words
    failure: Optional[str] = None

    @property
    def passed(self) -> Optional[bool]:
        """Whether every output reached the gate; None where there is no sample."""
        if self.none is not None or self.gate is None:
            return None
        return self.failure is None and all(c.passes(self.gate) for c in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        values = dataclasses.asdict(self)
        for comparison in values["comparisons"]:
            # JSON has no infinity; a reference of zeros gives one
            if comparison["relative_l2"] == float("inf"):
                comparison["relative_l2"] = None
        return {**values, "passed": self.passed}


def verify_bundle(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    options: Optional[EngineOptions] = None,
) -> list[SampleReport]:
    """Runs every sample that the bundle has; one graph is in memory at a time, save for the tick.

    Args:
        bundle: the bundle.
        backend: see `motedge.runtime.backends`.
        variant: one id for all graphs, such as "primitive-fp32"; None: the backend's first choice, graph by graph.
        recipe: quantization recipe; see `motedge.runtime.backends.open_engine`.
        options: threads.

    Raises:
        HostError: the bundle has no sample at all, so that nothing could be verified.
        BundleError, UsageError: see `open_engine`; a sample that does not fit its graph.
    """
    beside = [name for name in bundle.manifest.samples if name not in (*GRAPHS, TICK)]
    samples = [Sample.of(bundle, name) for name in (*GRAPHS, *beside, TICK)]
    if all(sample.file is None for sample in samples):
        raise HostError(
            "nothing could be verified",
            expected="a sample of at least one graph",
            got="; ".join(f"{sample.name}: {sample.none}" for sample in samples),
            fix="export again, with samples, on a machine with enough memory",
        )
    require_recipe(bundle, recipe)
    opened = _Opener(bundle, backend, variant, recipe, options or EngineOptions())
    reports = []
    for sample in samples:
        if sample.file is None:
            reports.append(SampleReport(sample.name, {}, sample.reference, none=sample.none))
            continue
        _log.info("verifying %s", sample.name)
        check = _verify_tick if sample.name == TICK else _verify_graph
        reports.append(check(bundle, sample, opened))
    return reports


@dataclass(frozen=True)
class _Opener:
    bundle: Bundle
    backend: str
    variant: Optional[str]
    recipe: Optional[str]
    options: EngineOptions

    def choice(self, graph: str) -> str:
        return choose_variant(self.bundle, graph, backend=self.backend, variant=self.variant, recipe=self.recipe)

    def engine(self, graph: str) -> Engine:
        return open_engine(
            self.bundle,
            graph,
            backend=self.backend,
            variant=self.variant,
            recipe=self.recipe,
            options=self.options,
        )

    def recipe_of(self, graph: str) -> Optional[str]:
        return self.bundle.variant(graph, self.choice(graph)).recipe


def _verify_graph(bundle: Bundle, sample: Sample, opened: _Opener) -> SampleReport:
    arrays = sample.arrays(bundle)
    engine = opened.engine(sample.name)
    contract = engine.contract
    _require(sample, arrays, [f"in.{s.name}" for s in contract.inputs] + [f"out.{s.name}" for s in contract.outputs])
    context = engine.context(_dims(engine, arrays))
    for spec in contract.inputs:
        value = np.ascontiguousarray(arrays[f"in.{spec.name}"], dtype=host_dtype(spec.dtype, engine.dtype))
        context.set_input(spec.name, value)
    start = time.perf_counter()
    context.run()
    duration_ms = 1e3 * (time.perf_counter() - start)
    compared = tuple(compare(s.name, context.output(s.name), arrays[f"out.{s.name}"]) for s in contract.outputs)
    engine.close()
    return SampleReport(
        sample.name,
        {sample.name: opened.choice(sample.name)},
        sample.reference,
        gate=sample.gate(engine.dtype, opened.recipe_of(sample.name)),
        comparisons=compared,
        duration_ms=duration_ms,
    )


def _verify_tick(bundle: Bundle, sample: Sample, opened: _Opener) -> SampleReport:
    arrays = sample.arrays(bundle)
    _require(sample, arrays, [*INPUTS, *OUTPUTS, "settings"])
    settings = settings_from_json(str(arrays["settings"]))
    tables = Tables.open(bundle)
    bundle.check_files([entry["file"] for entry in bundle.manifest.tables.values()])
    engines = {graph: opened.engine(graph) for graph in GRAPHS}
    variants = {graph: opened.choice(graph) for graph in GRAPHS}
    # The widest gate of the dtypes and recipes that took part
    gates = (sample.gate(engine.dtype, opened.recipe_of(graph)) for graph, engine in engines.items())
    gate = max(gates, key=lambda g: g.relative_l2)
    loop = DenoiseLoop(engines["und_prefill"], engines["gen_step"], tables, bundle.manifest.model["config"])
    try:
        start = time.perf_counter()
        result = run_tick(loop, engines["vae_encoder"], arrays, settings)
        duration_ms = 1e3 * (time.perf_counter() - start)
    except NonFiniteError as error:
        return SampleReport(TICK, variants, sample.reference, gate=gate, failure=str(error))
    finally:
        loop.close()
        for engine in engines.values():
            engine.close()
    compared = tuple(compare(name[len("out.") :], result[name], arrays[name]) for name in OUTPUTS)
    return SampleReport(TICK, variants, sample.reference, gate=gate, comparisons=compared, duration_ms=duration_ms)


def _dims(engine: Engine, arrays: Mapping[str, Array]) -> dict[str, int]:
    """The dynamic sizes of a graph's sample, read off its input shapes."""
    dims: dict[str, int] = {}
    sizes = engine.contract.sizes
    for spec in engine.contract.inputs:
        shape = arrays[f"in.{spec.name}"].shape
        if len(shape) == len(spec.dims):
            dims.update({d: n for d, n in zip(spec.dims, shape) if isinstance(d, str) and d not in sizes})
    return dims


def _require(sample: Sample, arrays: Mapping[str, Array], names: list[str]) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise BundleError(f"sample {sample.file} lacks arrays", expected=", ".join(names), got=f"no {missing}")
