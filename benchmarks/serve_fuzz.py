"""Messages that hypothesis makes, sent to a live policy server: each is answered, refused, or hung up on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import websockets.exceptions
import websockets.sync.client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motedge.client import protocol
from motedge.client.wire import pack, unpack
from motedge.errors import GateError

_WAIT_S = 10.0
# What a spoilt message may earn besides being unreadable; "failed" would be a bug
_CODES = (protocol.OBSERVATION, protocol.DEADLINE)
# RFC 6455: invalid data, too big
_CLOSED = (1007, 1009)
_PICTURE = np.zeros((16, 16, 3), np.uint8)
_BASE: dict[str, Any] = {
    protocol.WRIST: _PICTURE,
    protocol.EXTERIOR_1: _PICTURE,
    protocol.JOINTS: np.zeros(7, np.float32),
    protocol.GRIPPER: np.zeros(1, np.float32),
    protocol.PROMPT: "go",
}
_MORE = {protocol.REQUEST_ID: 1, protocol.COMMITTED: np.zeros((2, 8), np.float32), protocol.SEED: 3}
_SOUND = tuple(pack(message) for message in (_BASE, {**_BASE, **_MORE}, {**_BASE, protocol.DEADLINE_MS: 5.0}))
_KEYS = tuple(_BASE) + tuple(_MORE) + (protocol.DEADLINE_MS, protocol.EXTERIOR_2, protocol.IMAGE)

_VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=20)),
        *(st.binary(max_size=40), st.sampled_from(list(_BASE.values()))),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=8), st.sampled_from(_KEYS)), inner)
    ),
    max_leaves=8,
)


def messages() -> st.SearchStrategy[bytes]:
    """Sound observations with bytes changed, with fields changed, whatever else msgpack can say, and noise."""
    return st.one_of(_spoilt(), _changed(), _VALUES.map(_packed), st.binary(max_size=200))


@st.composite
def _spoilt(draw: st.DrawFn) -> bytes:
    """One to four changes, most of them in the first bytes, where keys and types are."""
    data = bytearray(draw(st.sampled_from(_SOUND)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data), 300) if draw(st.integers(0, 4)) else len(data)))
        kind = draw(st.sampled_from(["set", "cut", "put", "again", "end"]))
        if kind == "set":
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 50))]
        elif kind == "put":
            data[place:place] = draw(st.binary(min_size=1, max_size=50))
        elif kind == "again":
            data[place:place] = data[: draw(st.integers(1, 400))]
        else:
            del data[place:]
    return bytes(data)


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """Sound in its form: one to three fields are missing, or hold something else."""
    message = {**_BASE, **(_MORE if draw(st.booleans()) else {})}
    for key in draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=3)):
        if draw(st.booleans()):
            message.pop(key, None)
        else:
            message[key] = draw(_VALUES)
    return _packed(message)


def _packed(value: Any) -> bytes:
    try:
        return pack(value)
    except Exception:  # noqa: BLE001 -- what can't be packed is no message: its text is as good a noise as any
        return repr(value).encode("utf-8", "replace")


class _Talk:
    """One connection at a time; another one where the server ended it."""

    def __init__(self, url: str) -> None:
        self._url, self.told = url, Counter[str]()
        self._socket = self._connected()

    def say(self, message: bytes) -> None:
        """Sends it, and takes what comes; raises GateError where that is none of what may come."""
        try:
            self._socket.send(message)
            answer = self._socket.recv(timeout=_WAIT_S)
        except websockets.exceptions.ConnectionClosed as closed:
            self._again()
            code = None if closed.rcvd is None else closed.rcvd.code
            if code not in _CLOSED:
                raise GateError("the connection was lost", got=f"{code} after {message[:80]!r}") from closed
            self.told["closed"] += 1
            return
        code = _code(answer)
        if code == protocol.UNREADABLE:
            self._again()
        elif code is not None and code not in _CODES:
            raise GateError("a spoilt message was answered otherwise", got=str(answer)[:200])
        self.told[code or "answered"] += 1

    def _again(self) -> None:
        self.close()
        self._socket = self._connected()

    def _connected(self) -> Any:
        made = websockets.sync.client.connect(self._url, compression=None, max_size=None)
        made.recv(timeout=_WAIT_S)
        return made

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._socket.close()


def _code(answer: Any) -> str | None:
    """Of an error; None of actions."""
    if isinstance(answer, str):
        return answer.partition("]")[0].lstrip("[")
    read = unpack(answer)
    error = read.get("error") if isinstance(read, dict) else None
    return None if error is None else str(error["code"])


def fuzz(url: str, count: int) -> dict[str, int]:
    """Sends so many, always the same ones, and says what became of them.

    Raises:
        GateError: an answer that none of them may get, or none at all; hypothesis makes the message smaller first.
    """
    talk = _Talk(url)

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(messages())
    def send(message: bytes) -> None:
        talk.say(message)

    run: Callable[[], None] = send
    try:
        run()
    finally:
        talk.close()
    return dict(sorted(talk.told.items()))
