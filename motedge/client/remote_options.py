"""How a policy on another machine is reached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError


@dataclass(frozen=True)
class RemoteOptions:
    """Times in s, all by a clock that nobody sets."""

    # From the call of `act` to its answer, reconnecting included
    timeout_s: float = 10.0
    # For a connection, from the first try to the server's metadata: a server that still loads is waited for
    connect_timeout_s: float = 300.0
    # Between two tries to connect: the first, and what it grows to
    retry_s: float = 0.1
    retry_most_s: float = 2.0
    # Sent along: the server does not begin what can't be there in time. None: `timeout_s`
    deadline_ms: Optional[float] = None
    # Largest answer that is read
    answer_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_timeout_s", "retry_s", "retry_most_s", "deadline_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} of a remote policy", expected="over 0", got=value)
        if self.answer_bytes < 1024:
            raise UsageError("answer_bytes of a remote policy", expected="1024 or more", got=self.answer_bytes)
