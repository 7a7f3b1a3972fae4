"""What the policy answered, as messages of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

import numpy as np

from motedge.client import protocol
from motedge.client.wire import pack
from motedge.runtime.policy.chunk import ActionChunk
from motedge.serve.job import Outcome
from motedge.serve.policy_request import RequestId


def chunk_message(
    chunk: ActionChunk, outcome: Outcome, request_id: RequestId, server_timing: Mapping[str, float]
) -> bytes:
    """A chunk of actions.

    actions: float32 [rows, fields]
    server_timing: ms: infer_ms, the tick; queue_ms, before it; decode_ms, of the message; prev_total_ms, of this
        client's request before, from its arrival until its answer was on the way
    timings_ms: the policy's own stages
    rate_hz, field_names, units, kind, first_row, age_s, embodiment, seed, forwards, missing_views: as of ActionChunk
    deadline: met, or what `DeadlinePolicy` says of the tick; absent without one
    generation: int, which bundle, from 1
    reasoning: what the reasoner wrote, if it was asked
    motedge/request_id: as in the request
    """
    message: dict[str, Any] = {
        "actions": np.ascontiguousarray(chunk.actions, np.float32),
        "server_timing": dict(server_timing),
        "timings_ms": {name: float(value) for name, value in chunk.timings_ms.items()},
        "rate_hz": float(chunk.rate_hz),
        "field_names": list(chunk.field_names),
        "units": list(chunk.units),
        "kind": chunk.kind,
        "first_row": int(chunk.first_row),
        "age_s": None if chunk.age_s is None else float(chunk.age_s),
        "embodiment": chunk.embodiment,
        "seed": int(chunk.seed),
        "forwards": int(chunk.forwards),
        "missing_views": list(chunk.missing_views),
        "generation": outcome.generation,
    }
    if outcome.met is not None:
        message["deadline"] = {**dict(chunk.details.get("deadline", {})), "met": outcome.met}
    if chunk.reasoning is not None:
        message["reasoning"] = chunk.reasoning.to_dict()
    if request_id is not None:
        message[protocol.REQUEST_ID] = request_id
    return pack(message)


def error_message(code: str, text: str, request_id: RequestId) -> Union[bytes, str]:
    """An error: text for who speaks openpi's protocol alone, a map for who gave the request a name."""
    if request_id is None:
        return f"[{code}] {text}"
    return pack({"error": {"code": code, "text": text}, protocol.REQUEST_ID: request_id})
