"""A generator that is quantized at one denoising step and unquantized at the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from motedge.export.torch_engine import TorchEngine
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.parameters import SiteParameters
from motedge.quant.sites import module_sites
from motedge.runtime.engine import Array, Context


class SteppedEngine:
    """An engine of gen_step. Call `restart` before each request.

    The quantized layers are made once and put in and out: both forms of the projections are in memory.
    """

    def __init__(
        self, engine: TorchEngine, parameters: Mapping[str, SiteParameters], dtype: torch.dtype, step: int
    ) -> None:
        """`step`: number of the quantized step, from 0; `dtype`: see fake_quantized."""
        self.contract, self.dtype = engine.contract, engine.dtype
        self._engine, self._step = engine, step
        self._places = _places(engine.module, parameters)
        self._plain = self._layers()
        with fake_quantized(engine.module, parameters, dtype):
            self._quantized = self._layers()
        self._times: list[float] = []

    def restart(self) -> None:
        """The next forward is the first one of a request."""
        self._times = []

    def context(self, dims: Mapping[str, int]) -> Context:
        """See motedge.runtime.engine.Engine.context."""
        return _SteppedContext(self._engine.context(dims), self)

    def close(self) -> None:
        """Nothing to free before the engine within is dropped."""

    def run(self, context: Context, t: float) -> None:
        """One forward at timestep t; a new t is the next step."""
        if not self._times or self._times[-1] != t:
            self._times.append(t)
        quantized = len(self._times) - 1 == self._step
        self._put(self._quantized if quantized else self._plain)
        try:
            context.run()
        finally:
            self._put(self._plain)

    def _layers(self) -> list[nn.Module]:
        return [getattr(owner, attribute) for owner, attribute in self._places]

    def _put(self, layers: list[nn.Module]) -> None:
        for (owner, attribute), layer in zip(self._places, layers, strict=True):
            setattr(owner, attribute, layer)


class _SteppedContext:
    def __init__(self, context: Context, engine: SteppedEngine) -> None:
        self._context, self._engine = context, engine
        self._t: Array | None = None

    def set_input(self, name: str, value: Array) -> None:
        self._context.set_input(name, value)
        if name == "t":
            self._t = value

    def output(self, name: str) -> Array:
        return self._context.output(name)

    def run(self) -> None:
        self._engine.run(self._context, float("nan") if self._t is None else float(self._t[0]))


def _places(module: nn.Module, names: Mapping[str, object]) -> list[tuple[nn.Module, str]]:
    """Owner and attribute of each site."""
    sites = module_sites(module)
    paths = {id(layer): path for path, layer in module.named_modules()}
    places = []
    for name in names:
        parent, _, attribute = paths[id(sites[name][1])].rpartition(".")
        places.append((module.get_submodule(parent), attribute))
    return places
