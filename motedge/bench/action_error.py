"""How far actions are from those of the reference, for the same observations and noise, in their own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from motedge.errors import InternalError


@dataclass(frozen=True)
class GroupError:
    """Columns of one unit."""

    unit: str
    fields: tuple[str, ...]
    # Root of the mean square, and greatest |difference|, over observations, rows and columns, in the unit
    rms: float
    max: float
    # Greatest minus least value that the reference gives a column within one chunk: what the error is to be seen
    # against
    reference_span: float


@dataclass(frozen=True)
class ActionError:
    """Of one cell against another."""

    observations: int
    groups: tuple[GroupError, ...]
    # |difference| over |reference|, L2 over all columns as the policy returns them: what motedge quantize's gate asks
    # for; None where the reference is zero
    relative_l2: Optional[float]
    # The same, each observation by itself
    by_observation: tuple[Optional[float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def action_error(actions: Any, reference: Any, fields: Sequence[str], units: Sequence[str]) -> ActionError:
    """Compares chunks [observations, rows, columns]; fields and units name the columns."""
    own, right = (np.asarray(values, np.float64) for values in (actions, reference))
    if own.shape != right.shape or own.ndim != 3 or own.shape[2] != len(fields) or len(fields) != len(units):
        raise InternalError(f"actions {own.shape} against {right.shape} with {len(fields)} fields, {len(units)} units")
    difference = own - right
    groups = []
    for unit in dict.fromkeys(units):
        columns = [column for column, other in enumerate(units) if other == unit]
        part = difference[:, :, columns]
        groups.append(
            GroupError(
                unit=unit,
                fields=tuple(fields[column] for column in columns),
                rms=float(np.sqrt((part**2).mean())),
                max=float(np.abs(part).max()),
                reference_span=float(np.ptp(right[:, :, columns], axis=1).max()),
            )
        )
    each = tuple(_relative(part, whole) for part, whole in zip(difference, right))
    return ActionError(len(own), tuple(groups), _relative(difference, right), each)


def _relative(difference: Any, reference: Any) -> Optional[float]:
    whole = float(np.linalg.norm(reference))
    return float(np.linalg.norm(difference)) / whole if whole else None
