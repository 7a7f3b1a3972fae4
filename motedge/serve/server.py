"""The server: one port for robots, questions and measurements; listens, drains, ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from aiohttp import web

from motedge.errors import HostError, MotedgeError
from motedge.serve.access import check_exposure, tls_context
from motedge.serve.chat_endpoint import ChatEndpoint
from motedge.serve.doorkeeper import IDLE_S, LINGER_S, Doorkeeper
from motedge.serve.engine_room import SERVING, EngineRoom, Loader
from motedge.serve.gpu_thread import GpuThread
from motedge.serve.http_log import HttpLog
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions
from motedge.serve.policy_socket import GOING_AWAY, TRY_AGAIN_LATER, PolicySocket
from motedge.serve.refusal import CHAT_PATHS, NO_CHAT, NO_CHAT_BESIDE, refusal
from motedge.serve.service_manager import ALIVE, STOPPING, notify, watchdog_s

LOG = logging.getLogger(__name__)
# A peer that is gone without a word is noticed after one and a half of it
_HEARTBEAT_S = 20.0
_POOL_THREADS = 2
# For sockets to close, when everything is answered
_GOODBYE_S = 1.0


class PolicyServer:
    """Serves what a loader loads, until it is told to stop. Made and run in one event loop, once."""

    def __init__(
        self,
        load: Loader,
        options: ServeOptions = ServeOptions(),  # noqa: B008 -- frozen
        *,
        deadline_ms: Optional[float] = None,
        policy: bool = True,
        chat: bool = False,
        one_robot: bool = False,
    ) -> None:
        """Nothing is opened yet.

        Args:
            load: opens what is served; called in a thread of its own, at the start and for each reload.
            options: where to listen, limits.
            deadline_ms: of observations that say none.
            policy: whether observations are taken.
            chat: whether questions are.
            one_robot: the policy remembers what its robot saw: another one must wait until that one has gone.

        Raises:
            UsageError: an address beyond this machine without a token.
            MissingPackageError: prometheus_client is not installed.
        """
        check_exposure(options)
        self._options, self._deadline_ms, self._policy, self._chat = options, deadline_ms, policy, chat
        self._one_robot = one_robot
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self.metrics = ServeMetrics()
        self._door = Doorkeeper(options, self.metrics)
        self.room = EngineRoom(load, options, self.metrics, self._end)
        self._clients: Iterator[int] = itertools.count(1)
        self._sockets: set[PolicySocket] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._questions: Optional[ChatEndpoint] = None
        self._error: Optional[BaseException] = None
        # Where it listens, once it does
        self.port = 0

    async def run(self, on_listening: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`, SIGTERM or SIGINT; then answers what is under way, and ends.

        Raises:
            MotedgeError: the first load failed, or there is no room at the address.
            InternalError: the thread that runs the engines died.
        """
        with ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="motedge-pictures") as pool:
            app = self._app(pool)
            runner = web.AppRunner(
                app,
                access_log=None,
                logger=HttpLog(self.metrics),
                handle_signals=False,
                shutdown_timeout=_GOODBYE_S,
                keepalive_timeout=IDLE_S,
                lingering_time=LINGER_S,
            )
            await runner.setup()
            try:
                listener = await self._listen(runner)
                with self._signals():
                    on_listening()
                    self._begin(self.room.first_load())
                    self._begin(self._say_alive())
                    await self._stopped.wait()
                    await self._drain(listener)
            finally:
                for task in self._tasks:
                    task.cancel()
                await runner.cleanup()
        if self._error is not None:
            raise self._error
        self.room.close()

    def stop(self) -> None:
        """Begins the end; a second time, gives up what is under way."""
        if self._stopped.is_set():
            self.room.abandon()
        self._stopped.set()

    def _end(self, error: BaseException) -> None:
        self._error = error
        self._stopped.set()

    def _app(self, pool: ThreadPoolExecutor) -> web.Application:
        app = web.Application(middlewares=[self._door.check], client_max_size=self._options.body_bytes)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_post("/reload", self._reload_request)
        if self._policy:
            app.router.add_get("/", self._policy_socket)
        if self._chat:
            self._questions = chat = ChatEndpoint(self._options, self.metrics, self._served, pool)
            app.router.add_get("/v1/models", chat.models)
            app.router.add_post("/v1/chat/completions", chat.completions)
        else:
            app.router.add_route("*", f"{CHAT_PATHS}{{path:.*}}", self._no_chat)
        room, watch = self.room, self.metrics.watch
        watch("ready", "1 if requests are answered", lambda: float(room.ill() is None))
        watch("clients", "Robots that are connected", lambda: float(len(self._sockets)))
        watch("waiting_requests", "Observations that wait", lambda: float(room.gpu.waiting if room.gpu else 0))
        watch("busy_seconds", "How long the present step takes already", lambda: room.gpu.busy_s() if room.gpu else 0.0)
        watch("generation", "Which bundle is served", lambda: float(room.gpu.resident.generation if room.gpu else 0))
        return app

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        host, port, tls = self._options.host, self._options.port, tls_context(self._options)
        try:
            listener = await self._loop.create_server(
                self._door.protocols(runner.server, tls), host, port, reuse_address=True
            )
        except OSError as error:
            raise HostError(
                f"no server can listen on {host}:{port}", got=error.strerror or str(error), fix="take another --port"
            ) from error
        self.port = int(listener.sockets[0].getsockname()[1])
        return listener

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        calls = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: self._reload_signal}
        # Only a main thread gets any
        if threading.current_thread() is not threading.main_thread():
            calls = {}
        for number, call in calls.items():
            self._loop.add_signal_handler(number, call)
        try:
            yield
        finally:
            for number in calls:
                self._loop.remove_signal_handler(number)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say_alive(self) -> None:
        period_s = watchdog_s()
        while period_s is not None:
            await asyncio.sleep(period_s)
            if self.room.ill() is None or self.room.state != SERVING:
                notify(ALIVE)

    async def _drain(self, listener: asyncio.Server) -> None:
        """Answers what is under way; what is not done in time is given up."""
        listener.close()
        notify(STOPPING)
        # Also lets go who waits for the metadata
        self.room.drain()
        for socket in self._sockets:
            socket.finish()
        if not await self._quiet(self._options.drain_s):
            LOG.warning("%d clients are not done after %g s: let go", len(self._sockets), self._options.drain_s)
            self.room.abandon()
            if not await self._quiet(_GOODBYE_S):
                for socket in self._sockets:
                    socket.cut()

    async def _quiet(self, limit_s: float) -> bool:
        """Waits until nobody talks any more; whether it came to that."""
        until_s = self._loop.time() + limit_s
        while (busy := self._busy()) and self._loop.time() < until_s:
            await asyncio.sleep(0.01)
        return not busy

    def _busy(self) -> bool:
        return bool(self._sockets) or (self._questions is not None and self._questions.open > 0)

    def _served(self) -> GpuThread:
        gpu = self.room.serving
        if gpu is None:
            raise web.HTTPServiceUnavailable(text=f"{self.room.state}\n", headers={"Retry-After": "1"})
        return gpu

    async def _health(self, request: web.Request) -> web.Response:
        ill = self.room.ill()
        return web.Response(text="OK\n") if ill is None else web.Response(status=503, text=f"{ill}\n")

    async def _no_chat(self, request: web.Request) -> web.Response:
        return refusal(request, 404, NO_CHAT_BESIDE if self._one_robot else NO_CHAT)

    async def _metrics_text(self, request: web.Request) -> web.Response:
        text, content_type = self.metrics.text()
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _reload_request(self, request: web.Request) -> web.Response:
        try:
            return web.Response(text=f"{await self.room.reload()}\n")
        except MotedgeError as error:
            LOG.error("the reload failed, what was served still is: %s", error)
            return web.Response(status=409, text=f"{error}\n")

    def _reload_signal(self) -> None:
        async def work() -> None:
            try:
                await self.room.reload()
            except Exception as error:
                known = isinstance(error, MotedgeError)
                LOG.error("the reload failed, what was served still is: %s", error, exc_info=None if known else error)

        self._begin(work())

    async def _policy_socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=self._options.message_bytes, compress=False, heartbeat=_HEARTBEAT_S, timeout=_GOODBYE_S
        )
        if not socket.can_prepare(request):
            text = "a policy server: connect with a WebSocket; see also /healthz and /metrics\n"
            return web.Response(status=426, text=text, headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        # A client that comes while the engines load waits for the metadata, as it would for any slow server
        await self.room.decided.wait()
        gpu, transport = self.room.serving, request.transport
        if gpu is None or transport is None:
            await socket.close(code=GOING_AWAY)
            return socket
        if self._one_robot and self._sockets:
            await socket.close(code=TRY_AGAIN_LATER, message=b"the policy remembers its robot: one at a time")
            return socket
        number = next(self._clients)
        client = PolicySocket(socket, number, self._options, self.metrics, self._deadline_ms, transport.abort)
        self._sockets.add(client)
        try:
            await client.talk(gpu)
        finally:
            self._sockets.discard(client)
        return socket
