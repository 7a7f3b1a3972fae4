"""Graph und in the place of und_prefill: one copy of the understanding tower's weights reasons and reads prompts.

What the generator attends to is among what und returns; a buffer without tokens makes it a prefill.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from motedge.bundle import Contract
from motedge.errors import ContractError
from motedge.runtime.contract_check import host_dtype, require_input
from motedge.runtime.engine import Array, Context, Engine

_OUTPUT, _KEY = "und_kv", "k_for_gen"


class UndAsPrefill:
    """An engine of und_prefill over one of und, which stays its owner's. See `motedge.runtime.engine.Engine`."""

    def __init__(self, und: Engine, contract: Contract) -> None:
        """Takes the engine of und; `contract`: und_prefill's.

        Raises:
            ContractError: the graphs are of different models.
        """
        differing = [name for name, size in contract.sizes.items() if und.contract.sizes.get(name, size) != size]
        if differing:
            raise ContractError(
                "und and und_prefill are of different models",
                expected=", ".join(f"{name} {contract.sizes[name]}" for name in differing),
                got=", ".join(f"{name} {und.contract.sizes[name]}" for name in differing),
                fix="take both from one bundle",
            )
        self.contract, self._und = contract, und

    @property
    def dtype(self) -> str:
        """The dtype of und."""
        return self._und.dtype

    def context(self, dims: Mapping[str, int]) -> Context:
        """See `motedge.runtime.engine.Engine.context`."""
        self.contract.check_dims(dims)
        return _PrefillContext(self._und, self.contract, dims["S"])

    def close(self) -> None:
        """Nothing: und is its owner's."""


class _PrefillContext:
    """A context of und whose buffer holds no token."""

    def __init__(self, und: Engine, contract: Contract, count: int) -> None:
        self._contract = contract
        dims = {"S": count, "P": und.contract.profile["P"][0]}
        self._context = und.context(dims)
        names = {spec.name for spec in contract.inputs}
        for spec in und.contract.inputs:
            # The buffer, its length, visual features: none of them holds anything
            if spec.name not in names:
                shape = spec.shape({**und.contract.sizes, **dims})
                self._context.set_input(spec.name, np.zeros(shape, host_dtype(spec.dtype, und.dtype)))
        rows = self._context.output("kv")
        own = any(spec.name == _KEY for spec in und.contract.outputs)
        # Where the generator sees another key than und itself, K and V are put together anew
        self._key = self._context.output(_KEY) if own else None
        self._rows, self._und_kv = rows, np.empty_like(rows) if own else rows

    def set_input(self, name: str, value: Array) -> None:
        """See `motedge.runtime.engine.Context.set_input`."""
        require_input(self._contract, name)
        self._context.set_input(name, value)

    def output(self, name: str) -> Array:
        """See `motedge.runtime.engine.Context.output`."""
        if name != _OUTPUT:
            raise ContractError(f"graph {self._contract.graph!r} has no output {name!r}", expected=_OUTPUT)
        return self._und_kv

    def run(self) -> None:
        """See `motedge.runtime.engine.Context.run`."""
        self._context.run()
        if self._key is not None:
            self._und_kv[:, 0], self._und_kv[:, 1] = self._key, self._rows[:, 1]
