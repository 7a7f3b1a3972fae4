"""A socket's first moments: what it is before aiohttp knows of it, and before its TLS handshake is done.

Every socket is accepted in the clear and its handshake begun here, so that whoever counts sockets can hang up on one
that never ends its handshake: where the event loop is told to speak TLS by itself, nobody can.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Optional, cast

LOG = logging.getLogger(__name__)


class Entry(asyncio.Protocol):
    """Hands a socket over to aiohttp's protocol, at once or after a TLS handshake."""

    def __init__(
        self,
        handler: Any,
        tls: Optional[ssl.SSLContext],
        limit_s: float,
        on_come: Callable[[Entry], None],
    ) -> None:
        """`handler`: aiohttp's protocol; `limit_s`: of the handshake; `on_come`: told once it can be hung up on."""
        self.handler = handler
        self._tls, self._limit_s, self._on_come = tls, limit_s, on_come
        self._transport: Optional[asyncio.Transport] = None
        self._task: Optional[asyncio.Task[None]] = None

    @property
    def gone(self) -> bool:
        """Whether nothing can come of this socket any more."""
        return self._transport is None or self._transport.is_closing()

    def hang_up(self) -> None:
        """At once, in the middle of a handshake too."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._on_come(self)
        if self._tls is None:
            self._transport.set_protocol(self.handler)
            self.handler.connection_made(transport)
        else:
            self._task = asyncio.get_running_loop().create_task(self._shake_hands(self._transport, self._tls))

    def data_received(self, data: bytes) -> None:
        """Called by the loop if something came in the clear; it must not pass for something that came encrypted."""
        self.hang_up()

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        inside = _Inside()
        try:
            spoken = await asyncio.get_running_loop().start_tls(
                transport, inside, tls, server_side=True, ssl_handshake_timeout=self._limit_s
            )
        except (OSError, asyncio.TimeoutError) as error:
            LOG.debug("no TLS handshake: %s", error)
            transport.abort()
            return
        if spoken is None or inside.lost:
            transport.abort()
            return
        spoken.set_protocol(self.handler)
        self.handler.connection_made(spoken)
        if inside.held:
            self.handler.data_received(bytes(inside.held))
        if inside.ended:
            self.handler.eof_received()


class _Inside(asyncio.Protocol):
    """Holds what comes together with the end of the handshake, before aiohttp's protocol knows of its transport."""

    def __init__(self) -> None:
        self.held, self.ended, self.lost = bytearray(), False, False

    def data_received(self, data: bytes) -> None:
        self.held += data

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.lost = True
