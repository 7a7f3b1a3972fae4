"""One observation on its way through the server, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from motedge.runtime.policy.chunk import ActionChunk
from motedge.serve.policy_request import PolicyRequest


@dataclass(frozen=True, eq=False)
class Outcome:
    """A chunk, or an error with one of `motedge.client.protocol.ERROR_CODES`."""

    chunk: Optional[ActionChunk] = None
    code: Optional[str] = None
    text: str = ""
    # From its arrival to its turn, and what its turn took
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    # Which bundle answered; counts from 1
    generation: int = 0
    # Whether it was there by its deadline; None: it had none
    met: Optional[bool] = None


@dataclass(frozen=True, eq=False)
class Job:
    """A request that waits, or is worked on. Moments are on `time.monotonic`, in s."""

    client: int
    request: PolicyRequest
    arrived_s: float
    due_s: Optional[float]
    # Called once, from any thread
    answer: Callable[[Outcome], None]
