"""UniPC as a table of numbers: with a fixed schedule, every step is a linear combination with scalar coefficients.

Zhao et al. 2023, UniPC (https://arxiv.org/abs/2302.04867), data prediction, for x = (1 - sigma) x0 + sigma noise and
lambda = ln(1 - sigma) - ln(sigma). Scalars are fp32 as in the reference implementation, whose rounding they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motedge.errors import UsageError, closest
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.schedule import FlowSchedule

SOLVER_TYPES = ("bh1", "bh2")
_f32 = np.float32


@dataclass(frozen=True)
class UniPCCoefficients:
    """One row a step; the same table serves the numpy solver and one on a device.

    At step k, with the state x_k that was fed to the network and its velocity v_k:
    m_k = x_k - sigmas[k] v_k; c_k = correct[k] . (x_k, c_{k-1}, m_k, m_{k-1}, ...);
    x_{k+1} = predict[k] . (c_k, m_k, m_{k-1}, ...). What does not exist yet has the coefficient 0.
    """

    # fp32 [N + 1]
    sigmas: FloatArray
    # int64 [N], for the network
    timesteps: IntArray
    # fp32 [N, order + 3]: x_k, c_{k-1}, m_k, m_{k-1}, ..., m_{k-order}
    correct: FloatArray
    # fp32 [N, order + 1]: c_k, m_k, ..., m_{k-order+1}
    predict: FloatArray

    @property
    def steps(self) -> int:
        """N."""
        return len(self.timesteps)

    @property
    def order(self) -> int:
        """The solver's order; order + 1 values of m are kept."""
        return int(self.predict.shape[1]) - 1

    @classmethod
    def from_schedule(
        cls,
        schedule: FlowSchedule,
        *,
        order: int = 2,
        solver_type: str = "bh2",
        lower_order_final: bool = True,
    ) -> UniPCCoefficients:
        """Tabulates a solver. Cosmos 3 uses the defaults.

        Raises:
            UsageError: an order other than 1 to 3, an unknown solver type, no solution of this order.
        """
        if not 1 <= order <= 3:
            raise UsageError("this UniPC has no such order", expected="1, 2 or 3", got=order)
        if solver_type not in SOLVER_TYPES:
            raise UsageError(f"unknown solver type {solver_type!r}", fix=closest(solver_type, SOLVER_TYPES))
        steps, sigmas = schedule.steps, schedule.sigmas
        correct = np.zeros((steps, order + 3), np.float32)
        predict = np.zeros((steps, order + 1), np.float32)
        last_order = 0
        for k in range(steps):
            final = k == steps - 1
            if k == 0 or final:
                # At 0 there is nothing to correct; after the last network call the result is m itself
                correct[k, 0] = 1
            else:
                state, history = _corrector(sigmas, k, last_order, solver_type)
                correct[k, 1], correct[k, 2 : 2 + len(history)] = state, history
            if final:
                predict[k, 1] = 1
                break
            last_order = min(order, k + 1, steps - k if lower_order_final else order)
            state, history = _predictor(sigmas, k, last_order, solver_type)
            predict[k, 0], predict[k, 1 : 1 + len(history)] = state, history
        return cls(sigmas, schedule.timesteps, correct, predict)


def _predictor(sigmas: FloatArray, k: int, order: int, solver_type: str) -> tuple[float, list[float]]:
    """Coefficients of c_k and of m_k, m_{k-1}, ... in x_{k+1}."""
    target, source = sigmas[k + 1], sigmas[k]
    h = _log_snr(target) - _log_snr(source)
    ratios = [(_log_snr(sigmas[k - i]) - _log_snr(source)) / h for i in range(1, order)]
    e, scale, right = _exponentials(h, order, solver_type)
    # The simplified form of order 2 is part of the published solver
    rho = [0.5] if order == 2 else _solve(ratios, right[:-1])
    differences = [float(r) / float(rk) for r, rk in zip(rho, ratios)]
    a = float(_f32(1) - target)
    present = -a * float(e) + a * scale * sum(differences)
    return float(target / source), [present, *(-a * scale * d for d in differences)]


def _corrector(sigmas: FloatArray, k: int, order: int, solver_type: str) -> tuple[float, list[float]]:
    """Coefficients of c_{k-1} and of m_k, m_{k-1}, ... in c_k; `order` is that of the predictor that made x_k."""
    target, source = sigmas[k], sigmas[k - 1]
    h = _log_snr(target) - _log_snr(source)
    ratios = [(_log_snr(sigmas[k - 1 - i]) - _log_snr(source)) / h for i in range(1, order)]
    e, scale, right = _exponentials(h, order, solver_type)
    rho = [0.5] if order == 1 else _solve([*ratios, _f32(1)], right)
    differences = [float(r) / float(rk) for r, rk in zip(rho, ratios)]
    newest = float(rho[-1])
    a = float(_f32(1) - target)
    previous = -a * float(e) + a * scale * (sum(differences) + newest)
    return float(target / source), [-a * scale * newest, previous, *(-a * scale * d for d in differences)]


def _log_snr(sigma: Any) -> Any:
    return np.log(_f32(1) - sigma) - np.log(sigma)


def _exponentials(h: Any, order: int, solver_type: str) -> tuple[Any, float, list[Any]]:
    """expm1(-h), B(h), and the right-hand side of the order conditions, which is factorial-scaled phi over B(h)."""
    negative = -h
    e = np.expm1(negative)
    scale = negative if solver_type == "bh1" else e
    phi, factorial, right = e / negative - _f32(1), 1, []
    for i in range(1, order + 1):
        right.append(phi * _f32(factorial) / scale)
        factorial *= i + 1
        phi = phi / negative - _f32(1 / factorial)
    return e, float(scale), right


def _solve(ratios: Sequence[Any], right: Sequence[Any]) -> Sequence[Any]:
    """Solves sum_j ratio_j^i rho_j = right_i, i = 0, 1, ..."""
    if not ratios:
        return []
    matrix = np.vander(np.array(ratios, np.float32), increasing=True).T
    try:
        return list(np.linalg.solve(matrix, np.array(right, np.float32)))
    except np.linalg.LinAlgError as error:
        raise UsageError(
            "UniPC has no solution of this order on this schedule",
            why="two steps have the same log-SNR",
            fix="take order 2, or fewer steps",
        ) from error
