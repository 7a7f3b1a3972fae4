"""A policy on another machine, or in another process, behind `motedge serve`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from motedge.client import protocol
from motedge.client.clock import Clock, MonotonicClock
from motedge.client.connection import Connection, connect, websockets_package
from motedge.client.remote_chunk import RemoteChunk
from motedge.client.remote_errors import (
    ConnectionFailedError,
    MetadataError,
    RemoteError,
    RemoteTimeoutError,
)
from motedge.client.remote_options import RemoteOptions
from motedge.client.tls import encryption
from motedge.client.token import check_token
from motedge.client.waiting import Waiting
from motedge.client.wire import pack
from motedge.errors import UsageError, closest

LOG = logging.getLogger(__name__)


class RemotePolicy:
    """Asks a policy server for chunks of actions. A lost connection is made anew; one call of `act` at a time.

    `act` is a source for `motedge.client.ChunkStream`: `ChunkStream(policy.act, observe, options)`.
    """

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8000",
        *,
        token: Optional[str] = None,
        expect: Optional[Mapping[str, Any]] = None,
        options: RemoteOptions = RemoteOptions(),  # noqa: B008 -- frozen
        tls_ca: Optional[str] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        """Connects, and waits for a server that still loads or is not there yet; the log says so after 2 s.

        Args:
            url: ws://HOST:PORT, or wss:// with TLS.
            token: what the server asks for, if it does; `read_token` reads one from a file.
            expect: keys of the metadata and what they must be, now and after each reconnection; for example
                {"embodiment": "droid_lerobot", "rate_hz": 15, "action_rows": 32}.
            options: times and limits.
            tls_ca: PEM file of the authority that signed the server's certificate; None: the system's.
            clock: the time; None: the machine's, which nobody sets.

        Raises:
            ConnectionFailedError: no server came in time, or it refuses.
            MetadataError: it serves something else than expected.
            UsageError: `tls_ca` can't be used, or not with this address; or the token can't be sent.
        """
        self._url, self._token, self._expect, self._options = url, token, dict(expect or {}), options
        check_token(token)
        self._tls = encryption(url, tls_ca)
        self._clock = clock or MonotonicClock()
        self._waiting = Waiting(url, self._clock)
        self._lost: tuple[type[BaseException], ...] = (websockets_package().exceptions.WebSocketException, OSError)
        self._lock, self._closed, self._number = threading.Lock(), False, 0
        self._connection: Optional[Connection] = None
        # How often the connection was lost and made anew
        self.reconnects = 0
        # Answers that came after their call had given up
        self.late_answers = 0
        self._metadata = self._connect(self._clock.now_s() + options.connect_timeout_s).metadata

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said of itself when the connection was made."""
        return self._metadata

    def act(
        self,
        observation: Mapping[str, Any],
        committed: Any = None,
        *,
        deadline_ms: Optional[float] = None,
        seed: Optional[int] = None,
    ) -> RemoteChunk:
        """The next chunk of actions.

        Args:
            observation: as `motedge.client.protocol` says; `droid_observation` or `camera_observation` makes one.
            committed: float [n, fields], actions that are executed in any case; the chunk begins with them.
            deadline_ms: how long the answer is of use, counted by the server from the request's arrival.
            seed: of the noise.

        Raises:
            RemoteError: the server refuses, or the policy failed; `code` says which.
            RemoteTimeoutError: no answer in time.
            ConnectionFailedError: the server is gone, and did not come back in time.
            MetadataError: what came back is another policy.
        """
        with self._lock:
            begun_s = self._clock.now_s()
            due_s = begun_s + self._options.timeout_s
            self._number += 1
            message = self._message(observation, committed, deadline_ms, seed)
            while True:
                try:
                    answer = self._ask(message, due_s)
                except TimeoutError as error:
                    raise self._timeout() from error
                except self._lost as error:
                    self._forget()
                    if self._closed or self._clock.now_s() >= due_s:
                        raise ConnectionFailedError(
                            f"the connection to {self._url} was lost", got=str(error)
                        ) from error
                    LOG.warning("the connection to %s was lost: %s", self._url, error)
                    self._connect(due_s)
                    self.reconnects += 1
                else:
                    return RemoteChunk.from_answer(answer, 1e3 * (self._clock.now_s() - begun_s))

    def close(self) -> None:
        """Ends the connection; a call that is under way fails. Harmless when repeated."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            connection.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _message(
        self, observation: Mapping[str, Any], committed: Any, deadline_ms: Optional[float], seed: Optional[int]
    ) -> bytes:
        extra: dict[str, Any] = {protocol.REQUEST_ID: self._number}
        limit_ms = self._options.deadline_ms if deadline_ms is None else deadline_ms
        if limit_ms is not None:
            extra[protocol.DEADLINE_MS] = float(limit_ms)
        if committed is not None and len(committed):
            extra[protocol.COMMITTED] = np.asarray(committed, np.float32)
        if seed is not None:
            extra[protocol.SEED] = int(seed)
        return pack({**observation, **extra})

    def _ask(self, message: bytes, due_s: float) -> Mapping[str, Any]:
        if self._closed:
            raise UsageError("this remote policy is closed")
        connection = self._connection or self._connect(due_s)
        connection.send(message)
        while True:
            answer = connection.receive(due_s - self._clock.now_s())
            if isinstance(answer, str):
                raise RemoteError(f"the server refuses: {answer}")
            if not isinstance(answer, Mapping):
                raise RemoteError(f"the server answered with a {type(answer).__name__}")
            number = answer.get(protocol.REQUEST_ID)
            if isinstance(number, int) and number < self._number:
                self.late_answers += 1
                continue
            if number != self._number:
                raise RemoteError(f"the server answered request {number!r}; {self._number} was asked")
            error = answer.get("error")
            if error is not None:
                known = error if isinstance(error, Mapping) else {"text": str(error)}
                raise RemoteError(str(known.get("text")), known.get("code"))
            return answer

    def _connect(self, until_s: float) -> Connection:
        connection = connect(
            self._url, self._options, self._clock, until_s, self._waiting, token=self._token, tls=self._tls
        )
        try:
            check_metadata(connection.metadata, self._expect)
        except MetadataError:
            connection.close()
            raise
        self._connection, self._metadata = connection, connection.metadata
        return connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _timeout(self) -> RemoteTimeoutError:
        return RemoteTimeoutError(
            f"no answer from {self._url}",
            expected=f"within {self._options.timeout_s:g} s",
            why="the server is busy, or hangs; its answer will be thrown away",
        )


def check_metadata(metadata: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    """Whether a server serves what is expected of it.

    Raises:
        MetadataError: a key that it does not have, or another value; all of them are listed.
    """
    wrong = []
    for key, wanted in expect.items():
        if key not in metadata:
            raise MetadataError(f"the server's metadata has no {key!r}", fix=closest(key, metadata))
        got = metadata[key]
        same = list(got) == list(wanted) if isinstance(wanted, (list, tuple)) else got == wanted
        if not same:
            wrong.append(f"{key} {got!r}, not {wanted!r}")
    if wrong:
        raise MetadataError(
            "the server serves something else than this client expects",
            got="; ".join(wrong),
            why="its actions would mean something else to this robot",
            fix="start the server with the right bundle, or change what is expected",
        )
