"""/v1/chat/completions and /v1/models: questions to the reasoner as OpenAI's clients ask them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Optional, Union

from aiohttp import web

from motedge.errors import HostError, InternalError, MotedgeError
from motedge.runtime.reasoner.events import Event, Finished, Started
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.reasoner.thinking import Part
from motedge.serve.chat_answer import DONE, ChatAnswer, error_event
from motedge.serve.chat_job import ChatJob
from motedge.serve.chat_request import ChatRequest, chat_request
from motedge.serve.gpu_thread import GpuThread, StaleQuestionError, StoppingError
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions
from motedge.serve.policy_socket import SEND_S
from motedge.serve.question_media import QuestionMedia
from motedge.serve.rate_limit import RateLimits
from motedge.serve.refusal import INVALID, SERVER, error_response
from motedge.serve.resident import Resident
from motedge.serve.waiting_room import RoomFullError

LOG = logging.getLogger(__name__)
# How often it is looked whether who asked is still there
_LOOK_S = 0.5
_GIVEN_UP = "the reply was given up"


class ChatEndpoint:
    """Answers with what the GPU thread's reasoner says."""

    def __init__(self, options: ServeOptions, metrics: ServeMetrics, gpu: Callable[[], GpuThread], pool: Executor):
        """`gpu`: the thread, once there is one; `pool`: where pictures are decoded."""
        self._options, self._metrics, self._gpu, self._pool = options, metrics, gpu, pool
        self._rates = RateLimits(options.chat_rate_hz, options.chat_burst)
        # Questions that are read, wait or are answered
        self.open = 0

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        resident = self._gpu().resident
        served = [] if resident.reasoner is None else [{"id": resident.model, "object": "model", "owned_by": "motedge"}]
        return web.json_response({"object": "list", "data": served})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions. A question has its place before any of it is read: what is read takes memory."""
        gpu = self._gpu()
        if not self._rates.allows(request.remote or "", time.monotonic()):
            expected = (
                f"at most {self._options.chat_rate_hz:g} a second of one address, {self._options.chat_burst} at once"
            )
            return self._refused(429, f"too many questions\n  expected: {expected}")
        # One is answered while the others wait
        if self.open > self._options.chats_waiting:
            expected = f"at most {self._options.chats_waiting} that wait"
            return self._refused(429, f"too many questions wait for the reasoner\n  expected: {expected}")
        self.open += 1
        try:
            return await self._answered(request, gpu)
        finally:
            self.open -= 1

    async def _answered(self, request: web.Request, gpu: GpuThread) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        try:
            body = await asyncio.wait_for(request.read(), self._options.patience_s)
        except asyncio.TimeoutError:
            return self._refused(408, "the body did not come in time")
        try:
            asked = await loop.run_in_executor(self._pool, chat_request, body, self._options.chat_media)

            async def prepare(resident: Resident) -> ReasonerPrompt:
                return await loop.run_in_executor(self._pool, self._prompt, resident, asked)

            reply = _Reply(gpu, asked.options, prepare, _gone(request))
            await reply.ask()
        except MotedgeError as error:
            return self._refused(_status(error), str(error), code=_code(error))
        except Exception as error:
            LOG.exception("a question could not be read: %s", type(error).__name__)
            self._metrics.chat("failed")
            return error_response(500, "the server failed; its log says more")
        answer = ChatAnswer(reply.model)
        try:
            if asked.stream:
                return await self._stream(request, reply, answer, asked)
            return await self._whole(reply, answer)
        finally:
            reply.cancel()

    def _refused(self, status: int, text: str, code: Optional[str] = None) -> web.Response:
        self._metrics.chat("refused")
        return error_response(status, text, code=code, headers=_later(status))

    def _prompt(self, resident: Resident, asked: ChatRequest) -> ReasonerPrompt:
        """In a thread of the pool: pictures take their time."""
        reasoner: Any = resident.reasoner
        if asked.model and asked.model != resident.model:
            raise _UnknownModelError(f"unknown model {asked.model[:80]!r}", expected=resident.model)
        media = QuestionMedia(asked, reasoner, self._options)
        prompt: ReasonerPrompt = reasoner.prompt(
            asked.messages, media.images(), media.videos(), thinking=asked.thinking
        )
        return prompt

    async def _whole(self, reply: _Reply, answer: ChatAnswer) -> web.Response:
        started: Optional[Started] = None
        try:
            async for event in reply:
                started = event if isinstance(event, Started) else started
                if isinstance(event, Finished):
                    self._metrics.chat(event.reason, started, event)
                    return web.json_response(answer.whole(started, event))
        except _Failed as error:
            self._metrics.chat("failed")
            return error_response(error.status, str(error), code=error.code, headers=_later(error.status))
        self._metrics.chat("cancelled", started)
        return error_response(503, _GIVEN_UP)

    async def _stream(
        self, request: web.Request, reply: _Reply, answer: ChatAnswer, asked: ChatRequest
    ) -> web.StreamResponse:
        stream = _EventStream(request)
        started: Optional[Started] = None
        outcome, finished, code = "cancelled", None, None  # type: str, Optional[Finished], Optional[str]
        try:
            async for event in reply:
                if isinstance(event, Started):
                    # Only now: what is wrong with a prompt shows before
                    started = event
                    await stream.open()
                    await stream.write(answer.opening())
                elif isinstance(event, Part):
                    await stream.write(answer.part(event))
                else:
                    outcome, finished = event.reason, event
                    counts = answer.counts(started, event) if asked.usage else b""
                    await stream.end(answer.closing(event) + counts + DONE)
                    return stream.response
            text, status = _GIVEN_UP, 503
        except _Failed as error:
            outcome, text, status, code = "failed", str(error), error.status, error.code
        except ConnectionError:
            # Who asked has gone, or takes nothing
            return stream.response
        finally:
            self._metrics.chat(outcome, started, finished)
        if not stream.response.prepared:
            return error_response(status, text, code=code, headers=_later(status))
        with contextlib.suppress(ConnectionError):
            await stream.end(error_event(text, INVALID if status < 500 else SERVER))
        return stream.response


class _EventStream:
    """A response that is sent as it comes; who takes nothing of it for too long is let go."""

    def __init__(self, request: web.Request) -> None:
        self._request, self._loop = request, asyncio.get_running_loop()
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError where nobody takes it."""
        with self._watched():
            await self.response.write(data)

    async def end(self, data: bytes) -> None:
        """The last of it; as `write`."""
        with self._watched():
            await self.response.write(data)
            await self.response.write_eof()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the connection is gone")
        watch = self._loop.call_later(SEND_S, transport.abort)
        try:
            yield
        finally:
            watch.cancel()


class _UnknownModelError(MotedgeError):
    """Another model than the one that is served is asked."""


def _status(error: MotedgeError) -> int:
    """Of a question that was not taken."""
    if isinstance(error, RoomFullError):
        return 429
    if isinstance(error, (StoppingError, HostError)):
        return 503
    return 404 if isinstance(error, _UnknownModelError) else 400


def _code(error: MotedgeError) -> Optional[str]:
    return "model_not_found" if isinstance(error, _UnknownModelError) else None


def _later(status: int) -> Optional[dict[str, str]]:
    """Headers of an answer that may be another one soon."""
    return {"Retry-After": "1"} if status in (429, 503) else None


def _gone(request: web.Request) -> Callable[[], bool]:
    return lambda: request.transport is None or request.transport.is_closing()


class _Failed(Exception):
    """A reply that ended with an error; `str` is what may be said of it."""

    def __init__(self, error: BaseException, *, begun: bool = True) -> None:
        """`begun`: whether it was taken; if not, it is refused as any other that is not."""
        mendable = isinstance(error, MotedgeError) and not isinstance(error, (StoppingError, HostError))
        super().__init__(str(error) if isinstance(error, MotedgeError) else "the reasoner failed; see the server's log")
        self.status, self.code = 400 if mendable else 500, None  # type: int, Optional[str]
        if isinstance(error, MotedgeError) and not begun:
            self.status, self.code = _status(error), _code(error)


class _Reply:
    """Events of one reply as they come from the GPU thread; ends early where who asked has gone."""

    def __init__(
        self,
        gpu: GpuThread,
        options: SamplingOptions,
        prepare: Callable[[Resident], Awaitable[ReasonerPrompt]],
        gone: Callable[[], bool],
    ) -> None:
        """`prepare` makes the prompt for what is served; again, if that is another bundle when its turn has come."""
        self._events: asyncio.Queue[Union[Event, BaseException, None]] = asyncio.Queue()
        self._loop, self._gone = asyncio.get_running_loop(), gone
        self._gpu, self._options, self._prepare = gpu, options, prepare
        self._job: Optional[ChatJob] = None
        # Of the bundle that is asked
        self.model = ""

    async def ask(self) -> None:
        """Lets the question wait for its turn; raises what `prepare` does, RoomFullError or StoppingError."""
        resident = self._gpu.resident
        prompt = await self._prepare(resident)
        self.model = resident.model
        self._job = ChatJob(prompt, self._options, self._put, self._put, resident)
        self._gpu.ask(self._job)

    def cancel(self) -> None:
        """Wants no more of it."""
        if self._job is not None:
            self._job.cancelled = True

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yields events; raises _Failed."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), _LOOK_S)
            except asyncio.TimeoutError:
                if self._gone():
                    return
                continue
            if event is None:
                return
            if isinstance(event, StaleQuestionError):
                await self._ask_again()
                continue
            if isinstance(event, BaseException):
                if not isinstance(event, (MotedgeError, InternalError)):
                    LOG.error("a reply failed: %r", event, exc_info=event)
                raise _Failed(event)
            yield event
            if self._gone():
                return

    async def _ask_again(self) -> None:
        """Nothing of the reply has come yet."""
        try:
            await self.ask()
        except Exception as error:
            if not isinstance(error, MotedgeError):
                LOG.exception("a question could not be read: %s", type(error).__name__)
            raise _Failed(error, begun=False) from error

    def _put(self, event: Union[Event, BaseException, None]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
