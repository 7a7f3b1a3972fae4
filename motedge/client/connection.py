"""One WebSocket to a policy server, from the first try to its metadata."""

from __future__ import annotations

import contextlib
import inspect
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from motedge.client.clock import Clock
from motedge.client.protocol import METADATA_SCHEMA
from motedge.client.remote_errors import ConnectionFailedError, MetadataError, RemoteError
from motedge.client.remote_options import RemoteOptions
from motedge.client.tls import tls_hint, tls_refusal
from motedge.client.waiting import FIRST_S, Waiting, cause_of
from motedge.client.wire import WireLimits, unpack
from motedge.errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

# The server will not change its mind: why, and how to mend it
_REFUSALS = {
    401: (
        "it was started with --token-file, and answers nobody else",
        "give the server's token: token=read_token(FILE); the examples: --token-file FILE",
    ),
    403: ("the server refuses this client", "the server's --allow-host and --allow-origin say whom else it takes"),
    404: ("it serves no policy", "start the server without --no-policy, or give another address"),
}
_START = "start it (motedge serve BUNDLE), or give the address where it is"
# How long the server's first message is waited for before the log says so
_LOOK_S = FIRST_S


class Connection:
    """Connected from the beginning; `metadata` is what the server says of itself."""

    def __init__(self, socket: Any, limits: WireLimits, timeout_s: float, waiting: Waiting) -> None:
        """Reads the metadata from an open WebSocket.

        Raises:
            RemoteError: the server said something else.
            MetadataError: it is not a motedge server.
            TimeoutError, OSError, websockets' own: it said nothing, or is gone.
        """
        self._socket, self._limits, self._opened = socket, limits, contextlib.ExitStack()
        first = _first_message(socket, timeout_s, waiting)
        if isinstance(first, str):
            raise RemoteError(f"the server refuses: {first}")
        metadata = unpack(first, limits)
        if not isinstance(metadata, Mapping) or metadata.get("schema") != METADATA_SCHEMA:
            got = metadata.get("schema") if isinstance(metadata, Mapping) else type(metadata).__name__
            raise MetadataError(
                "this is not a motedge policy server", expected=METADATA_SCHEMA, got=got, fix="check the address"
            )
        self.metadata: Mapping[str, Any] = metadata

    def send(self, message: bytes) -> None:
        """Sends; raises OSError or websockets' ConnectionClosed."""
        self._socket.send(message)

    def receive(self, timeout_s: float) -> Union[str, Any]:
        """The next message: text as it is, bytes unpacked; raises TimeoutError, and as `send`."""
        message = self._socket.recv(timeout=max(timeout_s, 0.0))
        return message if isinstance(message, str) else unpack(message, self._limits)

    def close(self) -> None:
        """Says goodbye, if anyone listens."""
        with contextlib.suppress(Exception):
            self._opened.close()

    def keep(self, opened: contextlib.ExitStack) -> None:
        """Takes over what `close` ends."""
        self._opened = opened


def connect(
    url: str,
    options: RemoteOptions,
    clock: Clock,
    until_s: float,
    waiting: Waiting,
    *,
    token: Optional[str] = None,
    tls: Optional[ssl.SSLContext] = None,
) -> Connection:
    """Tries again and again, until there is a connection or `until_s` on the clock; `waiting` tells of it.

    Raises:
        ConnectionFailedError: there is none by then, or the server refuses for good.
        RemoteError, MetadataError: what answers is no policy server.
        MissingPackageError: websockets is not installed.
    """
    websockets = websockets_package()
    pause_s, tried = options.retry_s, 0
    waiting.begin(until_s)
    while True:
        left_s = until_s - clock.now_s()
        try:
            return _try(websockets, url, options, left_s, waiting, token, tls)
        except websockets.exceptions.InvalidURI as error:
            raise _no_address(url) from error
        except (OSError, TimeoutError, websockets.exceptions.WebSocketException) as error:
            tried += 1
            _raise_if_final(error, url, token)
            if clock.now_s() + pause_s >= until_s:
                raise ConnectionFailedError(
                    f"no policy server at {url}",
                    got=f"{error or type(error).__name__} ({tried} tries)",
                    fix=_START if isinstance(error, ConnectionRefusedError) else tls_hint(error, url),
                ) from error
            waiting.go_on(cause_of(error), pause_s)
            clock.sleep(pause_s)
            pause_s = min(2 * pause_s, options.retry_most_s)
        # Last: certificates that are not trusted are ValueErrors too
        except ValueError as error:
            raise _no_address(url) from error


def websockets_package() -> ModuleType:
    """The package, with its client for threads.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import websockets
        import websockets.exceptions
        import websockets.sync.client
    except ImportError as error:
        raise MissingPackageError("websockets", extra="client", purpose="to reach a policy server") from error
    return websockets


def _try(
    websockets: ModuleType,
    url: str,
    options: RemoteOptions,
    left_s: float,
    waiting: Waiting,
    token: Optional[str],
    tls: Optional[ssl.SSLContext],
) -> Connection:
    connect_once = websockets.sync.client.connect
    extra: dict[str, Any] = {} if tls is None else {"ssl": tls}
    if "proxy" in inspect.signature(connect_once).parameters:
        # A robot's policy is not behind the proxy that the environment names for the web
        extra["proxy"] = None
    with contextlib.ExitStack() as opening:
        # Compressing pictures costs more than it saves; a handshake takes no more than what is left. As a context
        # manager, for what connect() returns otherwise is about to change
        opened = opening.enter_context(
            connect_once(
                url,
                compression=None,
                max_size=options.answer_bytes,
                open_timeout=max(min(left_s, options.timeout_s), 0.01),
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                **extra,
            )
        )
        _bound_sending(opened.socket, options.timeout_s)
        limits = WireLimits(message_bytes=options.answer_bytes)
        connection = Connection(opened, limits, left_s, waiting)
        # From here on whoever has it closes it
        connection.keep(opening.pop_all())
        return connection


def _first_message(socket: Any, timeout_s: float, waiting: Waiting) -> Any:
    """Bytes or text; it comes when the server's engines are loaded and warm. Raises TimeoutError."""
    left_s = timeout_s
    while left_s > _LOOK_S:
        try:
            return socket.recv(timeout=_LOOK_S)
        except TimeoutError:
            left_s -= _LOOK_S
            waiting.go_on("connected, but it says nothing yet; a server that loads does not")
    return socket.recv(timeout=max(left_s, 0.0))


def _no_address(url: str) -> UsageError:
    return UsageError("this is no address of a policy server", expected="ws://HOST:PORT", got=url)


def _bound_sending(plain: socket.socket, timeout_s: float) -> None:
    """A server that takes nothing more must not hold the caller: sending then fails."""
    with contextlib.suppress(OSError, AttributeError):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


def _raise_if_final(error: BaseException, url: str, token: Optional[str]) -> None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in _REFUSALS:
        said = bytes(getattr(response, "body", None) or b"").decode("utf-8", "replace").strip()[:200]
        why, fix = _REFUSALS[status]
        does = "refuses the connection"
        if status == 401:
            does = "asks for a token, and none was given" if token is None else "refuses the token that was given"
        raise ConnectionFailedError(
            f"the policy server at {url} {does}",
            got=f"HTTP {status}: {said}" if said else f"HTTP {status}",
            why=why,
            fix=fix,
        ) from error
    refusal = tls_refusal(error, url)
    if refusal is not None:
        raise refusal from error
