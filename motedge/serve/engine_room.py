"""What is loaded, how it got there, and how it fares."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Optional

from motedge.errors import HostError, InternalError, MotedgeError
from motedge.serve.gpu_thread import GpuThread
from motedge.serve.metadata import contract_difference
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions
from motedge.serve.resident import Resident
from motedge.serve.service_manager import READY, RELOADING, notify

LOG = logging.getLogger(__name__)
# Given the number of the load, from 1
Loader = Callable[[int], Resident]
LOADING, SERVING, DRAINING, DEAD = "loading", "serving", "draining", "dead"
# Ticks that fail one after the other until the server says that it is not well
_FAILURES_MOST = 3


class EngineRoom:
    """Loads in threads of their own, so that the event loop and the engines at work go on. Of one event loop."""

    def __init__(
        self, load: Loader, options: ServeOptions, metrics: ServeMetrics, on_end: Callable[[BaseException], None]
    ) -> None:
        """`on_end`: called in the loop if nothing can be served, with why."""
        self._load, self._options, self._metrics, self._on_end = load, options, metrics, on_end
        self._loop = asyncio.get_running_loop()
        self._generations, self._reloading = itertools.count(1), asyncio.Lock()
        self.state = LOADING
        # None until the first load is done
        self.gpu: Optional[GpuThread] = None
        # Set once things are served, or will not be
        self.decided = asyncio.Event()

    @property
    def serving(self) -> Optional[GpuThread]:
        """The thread, while it takes requests."""
        return self.gpu if self.state == SERVING else None

    async def first_load(self) -> None:
        """Until things are served, or `on_end` was called."""
        try:
            resident = await self._loaded()
        except Exception as error:  # noqa: BLE001 -- raised by whoever is told
            self._end(error)
            return
        self.gpu = GpuThread(
            resident, waiting=self._options.waiting, chats=self._options.chats_waiting, on_death=self._died
        )
        if self.state == LOADING:
            self.state = SERVING
            self.decided.set()
            notify(READY)
            LOG.info("ready")

    async def reload(self) -> str:
        """Loads again, beside what is served meanwhile, and changes over between two ticks.

        Returns:
            What happened, in words.

        Raises:
            MotedgeError: it can't be loaded, or clients would misunderstand it; what was served still is.
        """
        gpu = self.serving
        if gpu is None:
            raise HostError(f"no reload now: the server is {self.state}", fix="try again later")
        if self._reloading.locked():
            raise HostError("a reload is under way", fix="wait for it")
        async with self._reloading:
            notify(RELOADING)
            try:
                resident = await self._loaded(functools.partial(_change_over, gpu))
            except BaseException:
                self._metrics.reload("failed")
                raise
            finally:
                notify(READY)
        self._metrics.reload("done")
        LOG.info("serving bundle number %d", resident.generation)
        return f"serving bundle number {resident.generation}"

    def drain(self) -> None:
        """Takes nothing more; what waits is still done."""
        if self.state != DEAD:
            self.state = DRAINING
        self.decided.set()
        if self.gpu is not None:
            self.gpu.stop()

    def abandon(self) -> None:
        """What waits is done no more."""
        if self.gpu is not None:
            self.gpu.stop(abandon=True)

    def close(self) -> None:
        """Ends the thread, which frees the engines.

        Raises:
            HostError: a tick still runs after the time for draining.
        """
        self.abandon()
        if self.gpu is not None and self.gpu.alive and not self.gpu.join(self._options.drain_s):
            raise HostError("a tick still runs; its engines are left alone", why="a driver call does not come back")

    def ill(self) -> Optional[str]:
        """What is wrong; None if nothing is."""
        gpu = self.serving
        if gpu is None:
            return self.state
        if not gpu.alive:
            return DEAD
        if gpu.busy_s() > self._options.stall_s:
            return f"stalled: a step takes more than {self._options.stall_s:g} s"
        return "failing: see the log" if gpu.failures_in_a_row >= _FAILURES_MOST else None

    async def _loaded(self, then: Optional[Callable[[Resident], None]] = None) -> Resident:
        """Loads in a daemon thread, and does what is to be done `then` there: a load that hangs keeps nothing, and
        engines that are not wanted after all are freed without the event loop.

        What is done `then` decides whose the engines are, also where nobody waits for them any more.
        """
        future: asyncio.Future[Resident] = self._loop.create_future()
        number = next(self._generations)

        def work() -> None:
            try:
                resident = self._load(number)
                if then is not None:
                    then(resident)
                settle: Callable[[], None] = functools.partial(_give, future, resident, then is None)
            except BaseException as error:  # noqa: BLE001 -- raised where it is waited for
                settle = functools.partial(_fail, future, error)
            self._soon(settle)

        threading.Thread(target=work, name="motedge-load", daemon=True).start()
        return await future

    def _died(self, error: BaseException) -> None:
        """Called from the thread that dies."""
        self._soon(functools.partial(self._end, InternalError(f"the thread that runs the engines died: {error!r}")))

    def _end(self, error: BaseException) -> None:
        self.state = DEAD
        self.decided.set()
        self._on_end(error)

    def _soon(self, call: Callable[[], None]) -> None:
        # The loop is closed where the server ended without waiting
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)


def _change_over(gpu: GpuThread, resident: Resident) -> None:
    """Serves it from the next tick on, or closes it; called from the thread that loaded it."""
    try:
        difference = contract_difference(dict(gpu.resident.metadata), dict(resident.metadata))
        if difference:
            raise MotedgeError(
                "this bundle means something else to the clients that are connected",
                got=difference,
                fix="end the server and start it with this bundle",
            )
        gpu.swap(resident)
    except BaseException:
        resident.close()
        raise


def _give(future: asyncio.Future[Resident], resident: Resident, ours: bool) -> None:
    """`ours`: whether nobody else closes it."""
    if not future.cancelled():
        future.set_result(resident)
    elif ours:
        # The server ended before the load did
        threading.Thread(target=resident.close, name="motedge-close", daemon=True).start()


def _fail(future: asyncio.Future[Resident], error: BaseException) -> None:
    if not future.cancelled():
        future.set_exception(error)
