"""What happens before a request is looked at: how many sockets there may be, who may speak, and for how long."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web

from motedge.serve.access import is_authorised, is_own_name
from motedge.serve.entry import Entry
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions
from motedge.serve.rate_limit import RateLimits
from motedge.serve.refusal import CHAT_PATHS, refusal

LOG = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Says nothing but whether all is well
OPEN_PATHS = ("/healthz",)
# A socket on which nothing is asked for so long is closed, and what is left of a refused body is read for so long
IDLE_S, LINGER_S = 15.0, 2.0
# However few clients there may be, so many may be about to say who they are
_STRANGERS_LEAST = 16
# Lines in the log about one address: so many a second, and at once
_WARNINGS = (0.1, 3)


class Doorkeeper:
    """Makes a protocol for each socket, and looks at each request first.

    A socket is a stranger's until a request on it showed that it may ask; only then does it take one of the places that
    clients have. Strangers have as many of their own, and where those are taken the one that came first has to go: so
    nobody who may not ask keeps those out who may.
    """

    def __init__(self, options: ServeOptions, metrics: ServeMetrics) -> None:
        """Of one server."""
        self._options, self._metrics = options, metrics
        # In the order in which they came, and what ends their time
        self._strangers: dict[Any, tuple[Entry, asyncio.TimerHandle]] = {}
        self._admitted: set[Any] = set()
        # The metrics count all of them
        self._warnings = RateLimits(*_WARNINGS)
        self._open: Callable[[], set[Any]] = set

    def protocols(self, server: Any, tls: ssl.SSLContext | None) -> Callable[[], asyncio.BaseProtocol]:
        """What the loop calls for each socket, which it accepts in the clear.

        Args:
            server: aiohttp's `AppRunner.server`.
            tls: Of this server; None without.
        """
        self._open = lambda: set(server.connections)
        return lambda: Entry(server(), tls, self._options.patience_s, self._came)

    def _came(self, entry: Entry) -> None:
        """One more stranger; the one that came first makes room if need be."""
        for handler, (known, timer) in list(self._strangers.items()):
            if known.gone:
                timer.cancel()
                del self._strangers[handler]
        if len(self._strangers) >= max(self._options.connections, _STRANGERS_LEAST):
            self._metrics.refused("strangers")
            oldest, timer = self._strangers.pop(next(iter(self._strangers)))
            timer.cancel()
            oldest.hang_up()
        timer = asyncio.get_running_loop().call_later(self._options.patience_s, self._give_up, entry)
        self._strangers[entry.handler] = entry, timer

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware."""
        if request.transport is None or request.transport.is_closing():
            # It spoke just when it had to make room
            return refusal(request, 503, "as many as may be are about to say who they are", close=True)
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.path in OPEN_PATHS:
            response = await handler(request)
            if request.protocol not in self._admitted:
                # Whoever asks no more than this gets no place
                response.force_close()
            return response
        if not self._admit(request.protocol):
            self._metrics.refused("connections")
            return refusal(request, 503, "as many clients as may be are connected", close=True, Retry_After="1")
        try:
            return await handler(request)
        except web.HTTPException as error:
            if not request.path.startswith(CHAT_PATHS):
                raise
            # What it says of itself, such as Retry-After or Allow; its text is written anew
            more = {name: value for name, value in error.headers.items() if not name.startswith("Content-")}
            text = (error.text or error.reason).strip()
            return refusal(request, error.status, text, close=error.status == 413, **more)

    def _refused(self, request: web.Request) -> web.Response | None:
        """The answer to who may not ask; None to who may."""
        origin, host = request.headers.get(hdrs.ORIGIN), request.headers.get(hdrs.HOST)
        if origin is not None and origin not in self._options.origins:
            # A page that an operator's browser has open could otherwise drive the robot: WebSockets know no same origin
            self._metrics.refused("origin")
            return refusal(request, 403, f"pages of {origin[:200]} may not ask; see --allow-origin", close=True)
        if self._options.token is None and not is_own_name(host, self._options):
            # Nor may one whose own name its DNS server has come to say is this machine's
            self._metrics.refused("host")
            return refusal(
                request, 403, f"this server is not called {(host or '')[:200]}; see --allow-host", close=True
            )
        shown = request.headers.get(hdrs.AUTHORIZATION)
        if request.path not in OPEN_PATHS and not is_authorised(shown, self._options.token):
            self._metrics.refused("token")
            if self._warnings.allows(request.remote or "", time.monotonic()):
                LOG.warning("a request of %s to %s without the token", request.remote, request.path[:80])
            return refusal(request, 401, "the token is missing or wrong", close=True, WWW_Authenticate="Bearer")
        return None

    def _admit(self, handler: Any) -> bool:
        """Whether there is a place for it; takes it if so."""
        if handler in self._admitted:
            return True
        self._admitted &= self._open()
        if len(self._admitted) >= self._options.connections:
            return False
        self._admitted.add(handler)
        if handler in self._strangers:
            # It would keep all that the handler holds
            self._strangers.pop(handler)[1].cancel()
        return True

    def _give_up(self, entry: Entry) -> None:
        """A socket that has not shown for so long that it may ask is closed."""
        if self._strangers.pop(entry.handler, None) is not None:
            entry.hang_up()
