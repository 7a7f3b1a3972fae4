"""One client's WebSocket: observations in, answers out, in the same order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, Union

from aiohttp import WSMsgType, web

from motedge.client import protocol
from motedge.client.wire import WireError, WireLimits, pack, unpack
from motedge.errors import MotedgeError
from motedge.serve.answers import chunk_message, error_message
from motedge.serve.gpu_thread import GpuThread, StoppingError
from motedge.serve.job import Job, Outcome
from motedge.serve.metrics import ServeMetrics
from motedge.serve.observed_keys import DROID_KEYS
from motedge.serve.options import ServeOptions
from motedge.serve.policy_request import PolicyRequest, RequestId, request_from_message, request_id_of
from motedge.serve.rate_limit import RateLimit
from motedge.serve.waiting_room import RoomFullError

LOG = logging.getLogger(__name__)
# Answers that may be outstanding; beyond, nothing more is read until the client has some
_OUTSTANDING = 16
# A client that takes no answers for so long is let go
SEND_S = 10.0
_BUG = "the message could not be looked at\n  why:      this is a bug in motedge; the server's log says more"
# RFC 6455, 7.4.1; the last one of IANA's registry
GOING_AWAY, UNSUPPORTED, INVALID, TRY_AGAIN_LATER = 1001, 1003, 1007, 1013


@dataclass(eq=False)
class _Pending:
    """One answer that is due, or the end of the conversation."""

    outcome: asyncio.Future[Outcome]
    request_id: RequestId = None
    arrived_s: float = 0.0
    decode_ms: float = 0.0
    # Closes the socket afterwards, with this code
    close: Optional[int] = None


class PolicySocket:
    """Speaks with one client from the metadata to the end."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        client: int,
        options: ServeOptions,
        metrics: ServeMetrics,
        deadline_ms: Optional[float],
        abort: Callable[[], None],
    ) -> None:
        """`socket` is open; `abort` cuts it off; `deadline_ms`: of requests that say none, None: they have none."""
        self._socket, self._client, self._options, self._metrics = socket, client, options, metrics
        self._deadline_ms, self._abort = deadline_ms, abort
        self._loop = asyncio.get_running_loop()
        self._limits = WireLimits(message_bytes=options.message_bytes)
        self._rate = RateLimit(options.rate_hz, options.burst, time.monotonic())
        self._outbox: asyncio.Queue[_Pending] = asyncio.Queue()
        self._room = asyncio.Semaphore(_OUTSTANDING)
        self._previous_ms: Optional[float] = None
        self._ended = False

    async def talk(self, gpu: GpuThread) -> None:
        """Until the client goes, or `finish` was called and everything is answered."""
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(pack(dict(gpu.resident.metadata)))
            both = [asyncio.create_task(work) for work in (self._read(gpu), self._write())]
            try:
                # Either may notice that the client has gone, while the other waits
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gpu.forget(self._client)
                for task in both:
                    task.cancel()
                await asyncio.wait(both)
            for task in done:
                task.result()

    def finish(self) -> None:
        """Answers what is under way, then says goodbye."""
        if not self._ended:
            self._end(GOING_AWAY)

    def cut(self) -> None:
        """Hangs up."""
        self._abort()

    async def _read(self, gpu: GpuThread) -> None:
        while not self._ended:
            await self._room.acquire()
            message = await self._socket.receive()
            if message.type == WSMsgType.BINARY:
                self._take(message.data, gpu)
            elif message.type == WSMsgType.TEXT:
                text = "observations come as binary messages\n  expected: msgpack, see docs/serve.md\n  got:      text"
                self._refuse(protocol.UNREADABLE, text)
                self._end(UNSUPPORTED)
            else:
                return
        # Nothing more is read, but the other side's goodbye
        while not self._socket.closed:
            if (await self._socket.receive()).type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return

    def _take(self, data: bytes, gpu: GpuThread) -> None:
        arrived_s, request_id = time.monotonic(), None  # type: float, RequestId
        try:
            message = unpack(data, self._limits)
            request_id = request_id_of(message)
            if not self._rate.allows(arrived_s):
                expected = f"at most {self._options.rate_hz:g} a second, {self._options.burst} at once"
                text = f"too many observations\n  expected: {expected}"
                self._refuse(protocol.RATE, text, request_id)
                return
            keys = gpu.resident.metadata.get("observation_keys", DROID_KEYS)
            request = request_from_message(message, self._options.image_pixels, f"client {self._client}", keys)
        except WireError as error:
            self._refuse(protocol.UNREADABLE, str(error))
            self._end(INVALID)
            return
        except MotedgeError as error:
            self._refuse(protocol.OBSERVATION, str(error), request_id)
            return
        except Exception:
            LOG.exception("a message could not be looked at")
            self._refuse(protocol.FAILED, _BUG, request_id)
            return
        self._submit(request, arrived_s, gpu)

    def _submit(self, request: PolicyRequest, arrived_s: float, gpu: GpuThread) -> None:
        limit_ms = self._deadline_ms if request.deadline_ms is None else request.deadline_ms
        due_s = None if limit_ms is None else arrived_s + limit_ms / 1e3
        pending = _Pending(self._loop.create_future(), request.request_id, arrived_s)
        pending.decode_ms = 1e3 * (time.monotonic() - arrived_s)
        try:
            gpu.submit(Job(self._client, request, arrived_s, due_s, self._answering(pending.outcome)))
        except RoomFullError as error:
            self._refuse(protocol.BUSY, str(error), request.request_id)
        except StoppingError as error:
            self._refuse(protocol.STOPPING, str(error), request.request_id)
        else:
            self._outbox.put_nowait(pending)

    def _answering(self, future: asyncio.Future[Outcome]) -> Callable[[Outcome], None]:
        def answer(outcome: Outcome) -> None:
            # The loop is gone where the server ended without waiting
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, future, outcome)

        return answer

    def _refuse(self, code: str, text: str, request_id: RequestId = None) -> None:
        future: asyncio.Future[Outcome] = self._loop.create_future()
        future.set_result(Outcome(code=code, text=text))
        self._outbox.put_nowait(_Pending(future, request_id, time.monotonic()))

    def _end(self, code: int) -> None:
        self._ended = True
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._outbox.put_nowait(_Pending(future, close=code))

    async def _write(self) -> None:
        while True:
            pending = await self._outbox.get()
            if pending.close is not None:
                await self._socket.close(code=pending.close)
                return
            outcome = await pending.outcome
            message = self._message(pending, outcome)
            if not await self._sent(message):
                return
            self._previous_ms = 1e3 * (time.monotonic() - pending.arrived_s)
            if outcome.chunk is not None:
                self._metrics.stages({"total": self._previous_ms})
            self._room.release()

    async def _sent(self, message: Union[bytes, str]) -> bool:
        """Whether the client took it. A task for each message, as of wait_for, would cost more than the message."""
        watch = self._loop.call_later(SEND_S, self._abort)
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except ConnectionError:
            LOG.info("client %d takes no answers: let go", self._client)
            return False
        finally:
            watch.cancel()
        return True

    def _message(self, pending: _Pending, outcome: Outcome) -> Union[bytes, str]:
        chunk, began_s = outcome.chunk, time.monotonic()
        self._metrics.request(outcome.code, met=outcome.met, held=chunk is not None and chunk.kind != "fresh")
        if chunk is None:
            return error_message(outcome.code or protocol.FAILED, outcome.text, pending.request_id)
        timing = {"infer_ms": outcome.infer_ms, "queue_ms": outcome.queue_ms, "decode_ms": pending.decode_ms}
        previous = {} if self._previous_ms is None else {"prev_total_ms": self._previous_ms}
        message = chunk_message(chunk, outcome, pending.request_id, {**timing, **previous})
        policy = {f"policy_{name}": value for name, value in chunk.timings_ms.items()}
        self._metrics.stages({**timing, **policy, "encode_ms": 1e3 * (time.monotonic() - began_s)})
        return message


def _resolve(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
