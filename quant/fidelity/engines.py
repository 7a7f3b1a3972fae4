"""What is compared: the graphs in onnxruntime, or their emulation in torch. One tower at a time is in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.fidelity.options import FidelityOptions
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import NVFP4
from motedge.quant.source import torch_dtype
from motedge.quant.towers import open_tower
from motedge.runtime.backends import open_engine
from motedge.runtime.backends.registry import BACKENDS
from motedge.runtime.engine import Engine, EngineOptions

_CPU = "onnxruntime"


@dataclass(frozen=True)
class Sides:
    """Opens either side of the comparison."""

    source: Bundle
    # None: emulation alone
    quantized: Bundle | None
    recipe: str
    parameters: Mapping[str, Mapping[str, SiteParameters]]
    options: FidelityOptions
    # The unquantized variant that both sides follow; None: torch
    base: str | None

    @property
    def engine(self) -> str:
        """In words."""
        if self.base is None:
            forced = self.quantized is None or self.options.engine == "torch"
            why = "" if forced else "; onnxruntime can't run the quantized graphs on a CPU"
            return f"torch {self.options.compute}, quantization emulated with scales in {self.dtype}{why}"
        return f"onnxruntime, {self.base} against {self.base}-{self.recipe}"

    @property
    def dtype(self) -> str:
        """The floating type of the graphs, in which scales are held; fp32 where there is no quantized graph."""
        bases = [self.followed(graph) for graph in self.parameters]
        return next((base.rpartition("-")[2] for base in bases if base), "fp32")

    def followed(self, graph: str) -> str | None:
        """The unquantized variant of a graph whose quantized form is measured or emulated; None if there is none."""
        if self.quantized is None:
            return None
        if self.base is not None:
            return self.base
        suffix = f"-{self.recipe}"
        known = [name.removesuffix(suffix) for name in self.quantized.graph(graph).variants if name.endswith(suffix)]
        return next((name for name in known if name in self.source.graph(graph).variants), None)

    @contextlib.contextmanager
    def open(self, graph: str, *, quantized: bool) -> Iterator[Engine]:
        """One side's engine of a graph; a graph that the recipe leaves alone is the same on both sides."""
        known = self.parameters.get(graph, {})
        if self.base is None or self.quantized is None:
            tower = open_tower(self.source, graph, compute=self.options.compute, device=self.options.device)
            with fake_quantized(tower.module, known if quantized else {}, torch_dtype(self.dtype)):
                yield tower
            return
        options = EngineOptions(threads=self.options.threads)
        if quantized and known:
            engine = open_engine(self.quantized, graph, variant=self.base, recipe=self.recipe, options=options)
        else:
            engine = open_engine(self.source, graph, variant=self.base, options=options)
        with contextlib.closing(engine):
            yield engine


def choose_sides(
    source: Bundle,
    quantized: Bundle | None,
    recipe: str,
    parameters: Mapping[str, Mapping[str, SiteParameters]],
    options: FidelityOptions,
) -> Sides:
    """Takes the graphs where onnxruntime runs them on both sides, unless told otherwise.

    Raises:
        UsageError: onnxruntime was asked for, and can't run the quantized graphs.
        BundleError: the quantized bundle has no variant of that recipe.
    """
    if quantized is not None:
        _require_recipe(quantized, recipe, parameters)
    bases = [] if quantized is None else cpu_bases(source, quantized, recipe, parameters)
    if options.engine == "onnxruntime" and not bases:
        raise UsageError(
            "onnxruntime can't run these graphs on a CPU",
            expected="variant primitive-fp32, which NVFP4 needs, or an fp16 one",
            got=", ".join(source.graph("gen_step").variants),
            fix="--engine torch, or export with --variants primitive-fp32",
        )
    base = None if options.engine == "torch" or not bases else bases[0]
    return Sides(source, quantized, recipe, parameters, options, base)


def _require_recipe(quantized: Bundle, recipe: str, graphs: Iterable[str]) -> None:
    for graph in graphs:
        known = sorted({variant.recipe or "none" for variant in quantized.graph(graph).variants.values()})
        if recipe not in known:
            raise BundleError(
                f"graph {graph!r} of {quantized.root} has no variant of recipe {recipe!r}",
                expected=recipe,
                got=", ".join(known),
                fix=f"motedge quantize --recipe {recipe}, or give the bundle that has it",
            )


def cpu_bases(
    source: Bundle, quantized: Bundle, recipe: str, parameters: Mapping[str, Mapping[str, SiteParameters]]
) -> Sequence[str]:
    """Unquantized variants of which onnxruntime runs the quantized form too, the best first."""
    fp4 = any(known.scheme.weight == NVFP4 for sites in parameters.values() for known in sites.values())
    found = []
    for kind in BACKENDS[_CPU].runs:
        base = "-".join(kind)
        # NVFP4 has a form for CPUs in fp32 only
        if fp4 and base != "primitive-fp32":
            continue
        plain = all(base in source.graph(graph).variants for graph in ("und_prefill", "gen_step"))
        if plain and all(f"{base}-{recipe}" in quantized.graph(graph).variants for graph in parameters):
            found.append(base)
    return found
