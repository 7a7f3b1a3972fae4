"""The UniPC solver in numpy: in-place steps on buffers made once. The reference for solvers on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from motedge.errors import ContractError, InternalError
from motedge.runtime.engine import FloatArray
from motedge.runtime.unipc_coefficients import UniPCCoefficients

# Elements worked on at a time: state, history and scratch of one block stay in the second-level cache
_BLOCK = 1 << 16


class UniPC:
    """Steps a state of any shape. Element-wise: one solver over concatenated modalities equals one solver each."""

    def __init__(self, coefficients: UniPCCoefficients, size: int) -> None:
        """`size`: elements of the state. Allocates order + 3 buffers of that size, and nothing later."""
        self.coefficients = coefficients
        self._size = size
        # Ring of m: the value of step k lies in row k % (order + 1)
        self._history = np.empty((coefficients.order + 1, size), np.float32)
        self._corrected = np.empty(size, np.float32)
        self._scratch = np.empty(min(size, _BLOCK), np.float32)
        self._next_step = 0

    def reset(self) -> None:
        """Starts anew: the next step is 0. The history needs no clearing, for its coefficients are then 0."""
        self._next_step = 0

    def step(self, k: int, state: FloatArray, velocity: FloatArray) -> None:
        """Replaces the state that was fed to the network at step k by that of step k + 1.

        state: fp32, contiguous, changed in place. velocity: fp32, contiguous, as many elements.

        Raises:
            ContractError: another dtype, size or memory order.
        """
        if k != self._next_step or k >= self.coefficients.steps:
            raise InternalError(f"UniPC step {k} was asked for, step {self._next_step} is next")
        x, v = self._flat("state", state), self._flat("velocity", velocity)
        table, kept = self.coefficients, len(self._history)
        correct = [float(c) for c in table.correct[k]]
        predict = [float(c) for c in table.predict[k]]
        sigma = table.sigmas[k]
        slots = [(k - back) % kept for back in range(kept)]
        for start in range(0, self._size, _BLOCK):
            block = slice(start, min(start + _BLOCK, self._size))
            scratch = self._scratch[: block.stop - start]
            present, corrected = x[block], self._corrected[block]
            m = [self._history[slot, block] for slot in slots]
            np.multiply(v[block], sigma, out=m[0])
            np.subtract(present, m[0], out=m[0])
            _combine(corrected, scratch, correct, [present, corrected, *m])
            _combine(present, scratch, predict, [corrected, *m])
        self._next_step = k + 1

    def _flat(self, name: str, array: FloatArray) -> FloatArray:
        if array.dtype != np.float32 or array.size != self._size or not array.flags.c_contiguous:
            raise ContractError(
                f"the solver can't take this {name}",
                expected=f"{self._size} contiguous float32 elements",
                got=f"{array.dtype} {array.shape}",
            )
        return array.reshape(-1)


def _combine(out: FloatArray, scratch: FloatArray, factors: Sequence[float], terms: Sequence[Any]) -> None:
    """Writes the sum of factor * term into `out`; of the terms, only the first with a factor may be `out` itself."""
    started = False
    for factor, term in zip(factors, terms):
        if factor == 0:
            continue
        target = scratch if started else out
        np.multiply(term, np.float32(factor), out=target)
        if started:
            np.add(out, scratch, out=out)
        started = True
