"""What a policy server answered, as the robot's side takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.client.remote_errors import RemoteError


@dataclass(frozen=True, eq=False)
class RemoteChunk:
    """Actions for the next moments; what `motedge.client.ChunkStream` takes as the answer of its source."""

    # float32 [rows, fields]; row i is due (i + 1 + first_row) / rate_hz after the observation
    actions: NDArray[np.float32]
    rate_hz: float
    field_names: tuple[str, ...]
    units: tuple[str, ...]
    # "fresh", or "held": what is left of an earlier chunk
    kind: str
    first_row: int
    # From the observation's arrival at the server to the answer, s
    age_s: Optional[float]
    # Cameras that were seen as black
    missing_views: tuple[str, ...]
    # Stage -> ms, of the server: infer_ms, queue_ms, decode_ms, prev_total_ms
    server_timing: Mapping[str, float]
    # Stage -> ms, of the policy
    timings_ms: Mapping[str, float]
    # From the call to the answer, ms
    round_trip_ms: float
    # Counts the bundles that the server has loaded
    generation: int
    # The whole answer
    answer: Mapping[str, Any]

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], round_trip_ms: float) -> RemoteChunk:
        """Of an answer's map.

        Raises:
            RemoteError: it is no answer of a motedge server.
        """
        try:
            actions = np.asarray(answer["actions"], np.float32)
            if actions.ndim != 2:
                raise ValueError(f"actions of shape {list(actions.shape)}")
            age_s = answer.get("age_s")
            return cls(
                actions=actions,
                rate_hz=float(answer["rate_hz"]),
                field_names=tuple(str(name) for name in answer["field_names"]),
                units=tuple(str(unit) for unit in answer["units"]),
                kind=str(answer["kind"]),
                first_row=int(answer["first_row"]),
                age_s=None if age_s is None else float(age_s),
                missing_views=tuple(str(name) for name in answer["missing_views"]),
                server_timing=dict(answer["server_timing"]),
                timings_ms=dict(answer["timings_ms"]),
                round_trip_ms=round_trip_ms,
                generation=int(answer["generation"]),
                answer=answer,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteError(f"the server's answer is no chunk of actions: {error!r}") from error
