"""What a bundle's graphs amount to, whatever the target: read once, in each recipe and at each size asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import Bundle
from motedge.quant.recipe import Recipe
from motedge.quant.schemes import NVFP4, Scheme
from motedge.runtime.reasoner.und_engine import GRAPH as UND
from motedge.targets.builders.selection import recipe_of
from motedge.targets.graph.kernels import fused, one_each
from motedge.targets.graph.liveness import ActivationPeak, activation_peak
from motedge.targets.graph.model import Graph
from motedge.targets.graph.quantized import apply_recipe, sites
from motedge.targets.graph.read import read_graph
from motedge.targets.graph.sizes import MAX, OPT, sizes_at
from motedge.targets.graph.values import Values
from motedge.targets.graph.work import graph_work
from motedge.targets.roofline.work import Work


@dataclass(frozen=True)
class GraphSizes:
    """Bytes of one graph in one recipe, at the largest sizes that are asked of it."""

    weight_bytes: int
    fp4_bytes: int
    # As TensorRT runs it: fused, matrix work writing its own results
    fused_peak: ActivationPeak
    # As onnxruntime runs it: every operator writes, elementwise ones over their input
    unfused_peak: ActivationPeak
    schemes: tuple[Scheme, ...]


class GraphFigures:
    """Sizes and work of a bundle's graphs; what was worked out is kept."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._recipes: dict[str, Recipe] = {}
        self._read = functools.lru_cache(maxsize=None)(self._read_graph)
        self._sizes_of = functools.lru_cache(maxsize=None)(self._sizes)
        self._work_of = functools.lru_cache(maxsize=None)(self._work)

    def sizes(self, graph: str, variant: str, applied: Optional[Recipe], *, host: bool = False) -> GraphSizes:
        """Bytes of a variant, with a recipe applied where one is given; `host`: as the host asks of it.

        Raises:
            BundleError, MissingPackageError: see `motedge.targets.graph.read.read_graph`.
            UsageError: a rule of the recipe matches no projection.
        """
        # Of the others the host asks for no more than a GPU, so that they are read once for both
        return self._sizes_of(graph, variant, self._key(applied), host and graph == UND)

    def work(
        self,
        graph: str,
        variant: str,
        applied: Optional[Recipe],
        *,
        frames: Optional[int] = None,
        und_len: Optional[int] = None,
    ) -> Work:
        """Work of one run at the profile's optimum, or at other frames or prompt length; errors as in `sizes`."""
        return self._work_of(graph, variant, self._key(applied), frames, und_len)

    def _key(self, recipe: Optional[Recipe]) -> Optional[str]:
        if recipe is None:
            return None
        key = recipe.fingerprint()
        self._recipes[key] = recipe
        return key

    def _sizes(self, graph: str, variant: str, applied: Optional[str], host: bool) -> GraphSizes:
        made = self._read(graph, variant, applied, MAX, None, None, host)
        values = Values(made)
        fp4 = sum(made.tensors[n].bytes for n in made.initializers if made.tensors[n].type == NVFP4)
        return GraphSizes(
            weight_bytes=made.weight_bytes,
            fp4_bytes=fp4,
            fused_peak=activation_peak(values, fused(values, epilogues=False), in_place=False),
            unfused_peak=activation_peak(values, one_each(values), in_place=True),
            schemes=self._schemes(made, variant, applied),
        )

    def _schemes(self, graph: Graph, variant: str, applied: Optional[str]) -> tuple[Scheme, ...]:
        kept = recipe_of(self.bundle, self.bundle.variant(graph.name, variant))
        recipe = kept if applied is None else self._recipes[applied]
        if recipe is None:
            return ()
        return tuple({s.id: s for s in recipe.resolve(graph.name, sites(graph)).values()}.values())

    def _work(
        self, graph: str, variant: str, applied: Optional[str], frames: Optional[int], und_len: Optional[int]
    ) -> Work:
        values = Values(self._read(graph, variant, applied, OPT, frames, und_len, False))
        return graph_work(values, fused(values))

    def _read_graph(
        self,
        graph: str,
        variant: str,
        applied: Optional[str],
        which: str,
        frames: Optional[int],
        und_len: Optional[int],
        host: bool,
    ) -> Graph:
        if applied is not None:
            clean: Graph = self._read(graph, variant, None, which, frames, und_len, host)
            return apply_recipe(clean, self._recipes[applied])
        sizes = sizes_at(self.bundle.contract(graph), which, frames=frames, und_len=und_len, host=host)
        return read_graph(self.bundle, graph, variant, sizes)
