"""A policy server in a thread, what it serves made up, and a client written from the protocol's public description."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import websockets.sync.client

from motedge.client import protocol
from motedge.runtime.policy.chunk import ActionChunk
from motedge.serve.options import ServeOptions
from motedge.serve.policy_request import PolicyRequest
from motedge.serve.server import PolicyServer

FIELDS = (*(f"joint_{index}" for index in range(7)), "gripper")
METADATA = {
    "schema": protocol.METADATA_SCHEMA,
    "embodiment": "droid_lerobot",
    "rate_hz": 15.0,
    "action_rows": 4,
    "action_fields": list(FIELDS),
    "action_units": [*["rad"] * 7, "fraction closed"],
    "family": "edge",
}


def chunk_of(request: PolicyRequest, kind: str = "fresh") -> ActionChunk:
    """The state, in every row: so an answer shows whose it is."""
    state = [*request.observation.joint_position.tolist(), request.observation.gripper_position]
    return ActionChunk(
        actions=np.tile(np.array(state, np.float32), (4, 1)),
        rate_hz=15.0,
        field_names=FIELDS,
        units=tuple(METADATA["action_units"]),
        embodiment="droid_lerobot",
        seed=request.seed or 0,
        forwards=5,
        missing_views=(),
        timings_ms={"vae_ms": 1.0, "total_ms": 2.0},
        details={},
        kind=kind,
    )


class MadeResident:
    """See `motedge.serve.resident.Resident`. `work` is done in each tick, after it was noted."""

    def __init__(self, generation: int = 1, work: Callable[[PolicyRequest], Any] = lambda request: None) -> None:
        self.generation, self.work, self.model = generation, work, "made"
        self.metadata: dict[str, Any] = dict(METADATA)
        self.reasoner: Any = None
        self.requests: list[PolicyRequest] = []
        self.kept: list[ActionChunk] = []
        self.closed = self.thoughts = self.left = 0

    def act(self, request: PolicyRequest, arrived_s: float, due_s: float | None) -> ActionChunk:
        self.requests.append(request)
        answer = self.work(request)
        return answer if isinstance(answer, ActionChunk) else chunk_of(request)

    def keep(self, request: PolicyRequest, chunk: ActionChunk) -> None:
        self.kept.append(chunk)

    def leave(self) -> None:
        self.left += 1

    def think(self) -> bool:
        self.thoughts += 1
        return self.thoughts < 3

    def close(self) -> None:
        self.closed += 1


class Served:
    """A server that runs in a thread."""

    def __init__(self, load: Callable[[int], Any], options: ServeOptions, **more: Any) -> None:
        self.error: BaseException | None = None
        self._listening, self._listened = threading.Event(), False
        self._load, self._options, self._more = load, options, more
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        if not self._listening.wait(10):
            raise AssertionError("the server does not listen")
        # What goes wrong once it listens is for the test to look at
        if self.error is not None and not self._listened:
            raise self.error

    def _run(self) -> None:
        async def serve() -> None:
            self.server = PolicyServer(self._load, self._options, **self._more)
            self.loop = asyncio.get_running_loop()
            await self.server.run(self._heard)

        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 -- for the test to look at
            self.error = error
        finally:
            self._listening.set()

    def _heard(self) -> None:
        self._listened = True
        self._listening.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}"

    def get(self, path: str, *, post: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Status and text of an HTTP request."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        request = urllib.request.Request(url, data=post, headers=headers, method="GET" if post is None else "POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def call(self, function: Callable[[], Any]) -> None:
        """In the server's loop."""
        self.loop.call_soon_threadsafe(function)

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ends it, and waits."""
        with contextlib.suppress(RuntimeError):
            self.call(self.server.stop)
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the server does not end"


@contextlib.contextmanager
def served(load: Any = None, *, wait: bool = True, **options: Any) -> Iterator[Served]:
    """A server on a free port; `load`: a resident, or what makes one of a number."""
    more = {name: options.pop(name) for name in ("deadline_ms", "policy", "chat", "one_robot") if name in options}
    resident = load if load is not None else MadeResident()
    make = resident if callable(resident) else (lambda generation: resident)
    running = Served(make, ServeOptions(port=0, **options), **more)
    try:
        if wait:
            until(lambda: running.get("/healthz")[0] == 200)
        yield running
    finally:
        running.stop()


def until(done: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Waits for something to come true."""
    until_s = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < until_s, "it did not come true"
        time.sleep(0.005)


def observation(number: float = 0.0, **changes: Any) -> dict[str, Any]:
    """What a DROID robot sends; `number` is in its state, and so in the answer."""
    base = {
        "observation/wrist_image_left": np.zeros((36, 64, 3), np.uint8),
        "observation/exterior_image_1_left": np.ones((36, 64, 3), np.uint8),
        "observation/joint_position": np.full(7, number, np.float64),
        "observation/gripper_position": np.zeros(1, np.float32),
        "prompt": "pick up the cup",
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def encode(value: Any) -> Any:
    """msgpack's `default`, by the public description."""
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def decode(value: Any) -> Any:
    """msgpack's `object_hook`, likewise."""
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
    return value


class DescribedClient:
    """Metadata first, then an observation and an answer in turn; a text is an error."""

    def __init__(self, url: str, **headers: str) -> None:
        connecting = websockets.sync.client.connect(url, compression=None, max_size=None, additional_headers=headers)
        self.socket = connecting.__enter__()
        self.metadata = self.receive()

    def send(self, message: Any) -> None:
        self.socket.send(msgpack.packb(message, default=encode))

    def receive(self, timeout_s: float = 10.0) -> Any:
        answer = self.socket.recv(timeout=timeout_s)
        return answer if isinstance(answer, str) else msgpack.unpackb(answer, object_hook=decode)

    def infer(self, message: Any) -> Any:
        self.send(message)
        return self.receive()

    def __enter__(self) -> DescribedClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()
