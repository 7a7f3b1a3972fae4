"""The understanding tower over an engine of graph und: K and V in one buffer that the engine reads where it lies."""

from __future__ import annotations

from typing import Optional

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.contract_check import host_dtype
from motedge.runtime.engine import Array, Context, Engine, FloatArray
from motedge.runtime.finite import check_finite

GRAPH = "und"
# Slots that the buffer begins with; it doubles when it is full, so that short replies don't pay for a long one's masks
_FIRST_SLOTS = 256
# Tokens of one forward at most: the scores of a piece, heads x S x (P + S), stay small
PIECE = 512


class EngineUnd:
    """See `motedge.runtime.reasoner.ports.UndStep`. The engine stays the caller's."""

    def __init__(self, engine: Engine, *, capacity: Optional[int] = None) -> None:
        """Takes the engine.

        Args:
            engine: of graph und.
            capacity: tokens of prompt and reply together; None: what the graph was exported for.

        Raises:
            ContractError: a capacity outside the graph's profile.
        """
        self._engine, contract = engine, engine.contract
        (least, _, most), (_, _, new) = contract.profile["P"], contract.profile["S"]
        self.capacity, self.max_new = most if capacity is None else capacity, min(new, PIECE)
        contract.check_dims({"P": self.capacity})
        self._dtype = host_dtype("graph", engine.dtype)
        self._layers = next((int(spec.dims[0]) for spec in contract.inputs if spec.name == "deepstack"), 0)
        self._width = contract.sizes["H"]
        # What a prompt's first piece sees: no slot of it holds a token
        self._nothing = self._new_buffer(least)
        self._buffer = self._new_buffer(max(least, min(_FIRST_SLOTS, self.capacity)))
        self._held = 0
        # Rows that hold tokens, as the graph takes it
        self._length = np.zeros(1, np.float32)
        self._one: Optional[Context] = None
        self._no_features = np.zeros((self._layers, 1, self._width), np.float32)

    def step(
        self,
        embeddings: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        start: int,
        deepstack: Optional[FloatArray],
    ) -> FloatArray:
        """See `UndStep.step`.

        Raises:
            ContractError: more tokens than the capacity, or a start beyond what is held.
            NonFiniteError: K or V are NaN or infinity.
        """
        count = len(embeddings)
        if not 0 <= start <= self._held or start + count > self.capacity:
            raise ContractError(
                "the reasoner's K and V don't reach from there to there",
                expected=f"a start of 0 to {self._held}, at most {self.capacity} tokens in all",
                got=f"{count} tokens from {start}",
            )
        context = self._context(count, start)
        self._length[0] = start
        context.set_input("embeddings", embeddings)
        context.set_input("cos", cos)
        context.set_input("sin", sin)
        context.set_input("past_length", self._length)
        if self._layers:
            context.set_input("deepstack", self._features(count, deepstack))
        context.run()
        rows = context.output("kv")
        # Before they are kept: a slot that is hidden must be finite all the same
        check_finite(rows, f"graph 'und' returned NaN or infinity in K or V after {start + count} tokens")
        self._keep(rows, start, count)
        logits: FloatArray = context.output("logits")
        return logits

    def _context(self, count: int, start: int) -> Context:
        """For so many new tokens; that of single ones is kept."""
        past = self._buffer if start else self._nothing
        if count == 1 and start:
            if self._one is None:
                self._one = self._engine.context({"S": 1, "P": past.shape[3]})
                self._one.set_input("past_kv", past)
            return self._one
        context = self._engine.context({"S": count, "P": past.shape[3]})
        context.set_input("past_kv", past)
        return context

    def _features(self, count: int, deepstack: Optional[FloatArray]) -> FloatArray:
        if deepstack is not None:
            return deepstack
        return self._no_features if count == 1 else np.zeros((self._layers, count, self._width), np.float32)

    def _keep(self, rows: Array, start: int, count: int) -> None:
        self._held = start + count
        slots = self._buffer.shape[3]
        if self._held > slots:
            larger = self._new_buffer(min(self.capacity, max(2 * slots, self._held)))
            larger[:, :, :, :start] = self._buffer[:, :, :, :start]
            self._buffer, self._one = larger, None
        self._buffer[:, :, :, start : self._held] = rows

    def _new_buffer(self, slots: int) -> Array:
        spec = self._engine.contract.tensor("past_kv")
        return np.zeros(spec.shape({**self._engine.contract.sizes, "P": slots}), self._dtype)
