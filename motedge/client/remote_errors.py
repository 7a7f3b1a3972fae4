"""What a policy on another machine raises."""

from __future__ import annotations

from typing import Optional

from motedge.errors import HostError, MotedgeError


class RemoteError(MotedgeError):
    """The server answered with an error. `code` is one of `motedge.client.protocol.ERROR_CODES`, or None."""

    def __init__(self, text: str, code: Optional[str] = None) -> None:
        super().__init__(text)
        self.code = code


class RemoteTimeoutError(HostError):
    """No answer in time. The connection stays; an answer that comes later is thrown away."""


class ConnectionFailedError(HostError):
    """No server there, or it was lost and did not come back in time."""


class MetadataError(MotedgeError):
    """The server serves something else than the caller expects."""
