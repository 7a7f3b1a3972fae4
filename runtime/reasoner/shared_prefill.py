"""Graph und in the place of und_prefill: one copy of the understanding tower's weights reasons and reads prompts.

What the generator attends to is among what und returns; a buffer without tokens makes it a prefill. A prompt of more
tokens than und takes at once is read in pieces, each beside K and V of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from motedge.bundle import Contract, TensorSpec
from motedge.errors import ContractError
from motedge.runtime.contract_check import check_array, host_dtype, require_input
from motedge.runtime.engine import Array, Context, Engine
from motedge.runtime.finite import check_finite

_OUTPUT, _KEY = "und_kv", "k_for_gen"


class UndAsPrefill:
    """An engine of und_prefill over one of und, which stays its owner's. See `motedge.runtime.engine.Engine`."""

    def __init__(self, und: Engine, contract: Contract) -> None:
        """Takes the engine of und; `contract`: und_prefill's.

        Raises:
            ContractError: the graphs are of different models.
        """
        require_same_model(und.contract, contract)
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
    """Contexts of und: the first one's buffer holds no token, those of further pieces what came before them."""

    def __init__(self, und: Engine, contract: Contract, count: int) -> None:
        self._contract, self._und, self._count = contract, und, count
        (least, _, _), (_, _, most) = und.contract.profile["P"], und.contract.profile["S"]
        parts = [slice(start, min(start + most, count)) for start in range(0, count, most)]
        past = und.contract.tensor("past_kv")
        self._pieces = [(parts[0], self._context(parts[0], self._zeros(past, {"P": least})))]
        if len(parts) == 1:
            self._rows = self._pieces[0][1].output("kv")
        else:
            self._rows = self._zeros(past, {"P": max(least, count)})
            self._pieces += [(part, self._context(part, self._rows)) for part in parts[1:]]
        own = any(spec.name == _KEY for spec in und.contract.outputs)
        # Where the generator sees another key than und itself, K and V are put together anew
        self._und_kv = np.empty_like(self._rows[:, :, :, :count]) if own else self._rows[:, :, :, :count]
        self._own = own

    def set_input(self, name: str, value: Array) -> None:
        """See `motedge.runtime.engine.Context.set_input`."""
        require_input(self._contract, name)
        spec = self._contract.tensor(name)
        shape = spec.shape({**self._contract.sizes, "S": self._count})
        check_array(self._contract.graph, name, value, shape, host_dtype(spec.dtype, self._und.dtype))
        for part, context in self._pieces:
            context.set_input(name, value[part])

    def output(self, name: str) -> Array:
        """See `motedge.runtime.engine.Context.output`."""
        if name != _OUTPUT:
            raise ContractError(f"graph {self._contract.graph!r} has no output {name!r}", expected=_OUTPUT)
        return self._und_kv

    def run(self) -> None:
        """See `motedge.runtime.engine.Context.run`."""
        for part, context in self._pieces:
            context.run()
            if len(self._pieces) > 1:
                rows = context.output("kv")
                # Before they are kept: a slot that is hidden must be finite all the same
                check_finite(rows, f"graph 'und' returned NaN or infinity in K or V, tokens up to {part.stop}")
                self._rows[:, :, :, part] = rows
            if self._own:
                self._und_kv[:, 0, :, part] = context.output(_KEY)
                self._und_kv[:, 1, :, part] = context.output("kv")[:, 1]

    def _context(self, part: slice, past: Array) -> Context:
        """One of und for some of the tokens, with a buffer of which those before them count."""
        dims = {"S": part.stop - part.start, "P": past.shape[3]}
        context = self._und.context(dims)
        names = {spec.name for spec in self._contract.inputs}
        given = {"past_kv": past, "past_length": np.array([part.start], np.float32)}
        for spec in self._und.contract.inputs:
            if spec.name not in names:
                # Visual features: none
                context.set_input(spec.name, given[spec.name] if spec.name in given else self._zeros(spec, dims))
        return context

    def _zeros(self, spec: TensorSpec, dims: Mapping[str, int]) -> Array:
        return np.zeros(spec.shape({**self._und.contract.sizes, **dims}), host_dtype(spec.dtype, self._und.dtype))


def require_same_model(und: Contract, prefill: Contract) -> None:
    """ContractError unless the contracts of und and und_prefill are of models of the same sizes."""
    differing = [name for name, size in prefill.sizes.items() if und.sizes.get(name, size) != size]
    if differing:
        raise ContractError(
            "und and und_prefill are of different models",
            expected=", ".join(f"{name} {prefill.sizes[name]}" for name in differing),
            got=", ".join(f"{name} {und.sizes[name]}" for name in differing),
            fix="take both from one bundle",
        )
