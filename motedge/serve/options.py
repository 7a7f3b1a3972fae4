"""Where a server listens, and how much it lets its clients do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError

_POSITIVE = ("rate_hz", "chat_rate_hz", "drain_s", "stall_s", "patience_s")
_WHOLE = (
    *("message_bytes", "body_bytes", "image_pixels", "chat_media", "chat_pixels"),
    *("connections", "waiting", "chats_waiting", "burst", "chat_burst"),
)


@dataclass(frozen=True)
class ServeOptions:
    """Every limit has a number, so that no client can take the memory or the time of the others."""

    host: str = "127.0.0.1"
    # 0: any that is free
    port: int = 8000
    # Secret that clients must show; None: none is asked for, on loopback only
    token: Optional[str] = None
    # PEM files; None: no TLS
    tls_cert: Optional[str] = None
    tls_key: Optional[str] = None
    # What browsers may call `Origin`; a browser's page is refused otherwise
    origins: tuple[str, ...] = ()
    # Names of this server besides its address and localhost, where no token is asked for
    hosts: tuple[str, ...] = ()
    # One observation
    message_bytes: int = 16 << 20
    # One request over HTTP, pictures in base64 included
    body_bytes: int = 32 << 20
    # One picture
    image_pixels: int = 16 << 20
    # Pictures and videos of one question, and the pixels of all of them, sampled frames included
    chat_media: int = 16
    chat_pixels: int = 64 << 20
    # Clients at once; sockets that have not shown yet that they may ask are counted apart
    connections: int = 64
    # Observations that wait for their turn; each client has one at most
    waiting: int = 16
    # Questions to the reasoner that wait for their turn
    chats_waiting: int = 4
    # Observations a second of one client, and how many may come at once
    rate_hz: float = 200.0
    burst: int = 20
    # Questions a second from one address, and how many may come at once
    chat_rate_hz: float = 10.0
    chat_burst: int = 20
    # For requests that are under way when the server is told to end
    drain_s: float = 10.0
    # A tick that takes longer makes the server unhealthy
    stall_s: float = 60.0
    # For a first request on a new socket, and for the body of one
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} of a server", expected="over 0", got=value)
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} of a server", expected="a whole number, 1 or more", got=repr(value))
        if not 0 <= self.port <= 65535:
            raise UsageError("port of a server", expected="0 to 65535", got=self.port)
        if (self.tls_cert is None) != (self.tls_key is None):
            given, lacking = ("--tls-cert", "--tls-key") if self.tls_key is None else ("--tls-key", "--tls-cert")
            raise UsageError(
                "TLS needs a certificate and its key",
                expected="--tls-cert FILE and --tls-key FILE",
                got=f"{given} alone",
                fix=f"{lacking} FILE beside it, or neither",
            )
