"""The one thread that runs the engines: observations first, between them the reasoner, a token at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Optional, Union

from motedge.client import protocol
from motedge.errors import ContractError, MotedgeError, ObservationError, UsageError
from motedge.runtime.deadline.errors import DeadlineMissedError
from motedge.runtime.reasoner.events import Event, Pause
from motedge.serve.chat_job import ChatJob
from motedge.serve.job import Job, Outcome
from motedge.serve.resident import Resident
from motedge.serve.waiting_room import RoomFullError, WaitingRoom

LOG = logging.getLogger(__name__)
# Tokens of a question that are read at once: as of motedge.runtime.reasoned.options.ReasonOptions
_PIECE = 64
_STOPPING = "the server is about to end"
_DIED = "the thread that runs the policy died; the server ends"
_BUG = "the policy failed\n  why:      this is a bug in motedge; the server's log says more"


class StoppingError(MotedgeError):
    """No more is taken."""


class StaleQuestionError(MotedgeError):
    """Another bundle took over since the question was made into tokens."""


class GpuThread:
    """Owns what is loaded. Every other method may be called from any thread, and none waits for a tick."""

    def __init__(
        self, resident: Resident, *, waiting: int, chats: int, on_death: Callable[[BaseException], None]
    ) -> None:
        """Takes over `resident`; starts at once.

        Args:
            resident: what is served; closed by the thread.
            waiting: observations that may wait.
            chats: questions that may wait beside one that is answered.
            on_death: called from the thread, should it die of something that is no error of a request.
        """
        self._resident, self._next_resident = resident, None  # type: tuple[Resident, Optional[Resident]]
        self._room: WaitingRoom[Job] = WaitingRoom(waiting)
        self._chats: deque[ChatJob] = deque()
        self._chats_most, self._on_death = chats, on_death
        self._chat: Optional[ChatJob] = None
        self._steps: Optional[Iterator[Union[Event, Pause]]] = None
        self._retired: list[Resident] = []
        self._current: Optional[Job] = None
        self._thinking = self._stopping = self._dead = False
        self._since_s: Optional[float] = None
        # Ticks that failed, other than by their request's fault, since one did not
        self.failures_in_a_row = 0
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="motedge-gpu", daemon=True)
        self._thread.start()

    @property
    def resident(self) -> Resident:
        """What is served now."""
        return self._resident

    @property
    def waiting(self) -> int:
        """Observations that wait."""
        return len(self._room)

    @property
    def alive(self) -> bool:
        """Whether it works on."""
        return self._thread.is_alive() and not self._dead

    def busy_s(self) -> float:
        """How long what is worked on has been; 0 if nothing is."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def submit(self, job: Job) -> None:
        """Lets an observation wait for its turn; an older one of the same client is answered with "dropped".

        Raises:
            RoomFullError: too many wait.
            StoppingError: nothing is taken any more.
        """
        with self._wake:
            self._require_open()
            older = self._room.put(job)
            self._wake.notify()
        if older is not None:
            older.answer(Outcome(code=protocol.DROPPED, text=_dropped(older)))

    def forget(self, client: int) -> None:
        """What this client waits for is done no more."""
        with self._wake:
            self._room.forget(client)

    def ask(self, chat: ChatJob) -> None:
        """Lets a question wait for its turn; those that nobody wants any more make room.

        Raises:
            RoomFullError, StoppingError: as of `submit`.
        """
        with self._wake:
            self._require_open()
            self._chats = deque(each for each in self._chats if not each.cancelled)
            # The one that is answered, too: it may not have been begun yet
            if len(self._chats) + (self._chat is not None) > self._chats_most:
                raise RoomFullError(
                    "too many questions wait for the reasoner", expected=f"at most {self._chats_most}", fix="ask later"
                )
            self._chats.append(chat)
            self._wake.notify()

    def swap(self, resident: Resident) -> None:
        """Serves this from the next tick on; the one before is closed once its last reply is done.

        Raises:
            StoppingError: the thread is about to end; `resident` is left open.
        """
        with self._wake:
            self._require_open()
            if self._next_resident is not None:
                self._retired.append(self._next_resident)
            self._next_resident = resident
            self._wake.notify()

    def stop(self, *, abandon: bool = False) -> None:
        """Takes nothing more, and ends when all that waits is done; with `abandon`, when the present step is."""
        left: list[Job] = []
        with self._wake:
            self._stopping = True
            if abandon:
                left = self._room.empty()
                self._cancel_chats()
            self._wake.notify()
        for job in left:
            job.answer(Outcome(code=protocol.STOPPING, text=_STOPPING))

    def join(self, timeout_s: float) -> bool:
        """Waits for the end; whether it came in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _require_open(self) -> None:
        if self._stopping or self._dead:
            raise StoppingError(_DIED if self._dead else _STOPPING)

    def _cancel_chats(self) -> None:
        for chat in (*self._chats, *([] if self._chat is None else [self._chat])):
            chat.cancelled = True

    def _run(self) -> None:
        try:
            while True:
                work = self._next()
                if work is None:
                    break
                work()
                with self._wake:
                    self._since_s = None
            self._close_all()
        except BaseException as error:  # noqa: BLE001 -- whoever waits is told, then the server ends
            self._die(error)

    def _next(self) -> Optional[Callable[[], None]]:
        """What is to be done now; waits for it. None: nothing ever again."""
        with self._wake:
            while True:
                work = self._choose()
                if work is not None:
                    self._since_s = time.monotonic()
                    return work
                if self._stopping:
                    return None
                self._wake.wait()

    def _choose(self) -> Optional[Callable[[], None]]:
        if self._next_resident is not None:
            return self._take_over
        job = self._room.take()
        if job is not None:
            self._current = job
            return self._act
        if self._chat is not None or self._chats:
            return self._talk
        return self._think if self._thinking and not self._stopping else None

    def _act(self) -> None:
        job, self._thinking = self._current, True
        if job is None:
            return
        began_s = time.monotonic()
        outcome = self._tried(job, began_s)
        self._current = None
        job.answer(outcome)
        if outcome.chunk is not None:
            try:
                self._resident.keep(job.request, outcome.chunk)
            except Exception:
                LOG.exception("a tick was not recorded")

    def _tried(self, job: Job, began_s: float) -> Outcome:
        queue_ms, generation = 1e3 * (began_s - job.arrived_s), self._resident.generation
        if job.due_s is not None and began_s >= job.due_s:
            text = f"the deadline passed before the request's turn\n  got:      {queue_ms:.1f} ms of waiting"
            return Outcome(None, protocol.DEADLINE, text, queue_ms, 0.0, generation, met=False)
        chunk, code, text = None, None, ""
        try:
            chunk = self._resident.act(job.request, job.arrived_s, job.due_s)
        except DeadlineMissedError as error:
            code, text = protocol.DEADLINE, str(error)
        except (ObservationError, UsageError, ContractError) as error:
            code, text = protocol.OBSERVATION, str(error)
        except MotedgeError as error:
            LOG.error("a tick failed: %s", error)
            code, text = protocol.FAILED, str(error)
        except Exception as error:
            LOG.exception("a tick failed: %s", type(error).__name__)
            code, text = protocol.FAILED, _BUG
        self.failures_in_a_row = self.failures_in_a_row + 1 if code == protocol.FAILED else 0
        ended_s = time.monotonic()
        met = None if job.due_s is None else chunk is not None and chunk.kind == "fresh" and ended_s <= job.due_s
        return Outcome(chunk, code, text, queue_ms, 1e3 * (ended_s - began_s), generation, met)

    def _think(self) -> None:
        try:
            self._thinking = self._resident.think()
        except Exception as error:
            # The next tick begins it anew
            self._thinking = False
            known = isinstance(error, MotedgeError)
            LOG.error("thinking failed: %s", error, exc_info=None if known else error)

    def _talk(self) -> None:
        """One step of a reply."""
        with self._wake:
            if self._chat is None and self._chats:
                self._chat = self._chats.popleft()
        chat, resident = self._chat, self._resident
        if chat is None:
            return
        try:
            if self._steps is None and not chat.cancelled:
                if resident.reasoner is None:
                    raise UsageError("this server has no reasoner")
                if chat.resident is not resident:
                    raise StaleQuestionError("another bundle took over", fix="ask again")
                # In pieces where a robot may ask meanwhile
                piece = _PIECE if resident.metadata else None
                self._steps = resident.reasoner.steps(chat.prompt, chat.options, piece=piece)
            event = None if self._steps is None or chat.cancelled else next(self._steps, None)
        except Exception as error:  # noqa: BLE001 -- it is the question's, and told to whoever asked
            self._end_chat()
            chat.fail(error)
            return
        if event is None:
            self._end_chat()
            chat.emit(None)
        elif not isinstance(event, Pause):
            chat.emit(event)

    def _end_chat(self) -> None:
        close = getattr(self._steps, "close", None)
        self._chat = self._steps = None
        if close is not None:
            try:
                close()
            except Exception:
                LOG.exception("a reply could not be ended in order")
        self._close_retired()

    def _take_over(self) -> None:
        with self._wake:
            fresh, self._next_resident = self._next_resident, None
            if fresh is None:
                return
            old, self._resident = self._resident, fresh
            self._retired.append(old)
        try:
            old.leave()
        except Exception:
            LOG.exception("what was served before could not be left in order")
        self._thinking, self.failures_in_a_row = False, 0
        if self._steps is None:
            self._close_retired()

    def _close_retired(self) -> None:
        with self._wake:
            retired, self._retired = self._retired, []
        for resident in retired:
            _close(resident)

    def _close_all(self) -> None:
        self._close_retired()
        _close(self._resident)

    def _die(self, error: BaseException) -> None:
        LOG.error("the thread that runs the policy died: %r", error, exc_info=error)
        with self._wake:
            self._dead = True
            left = self._room.empty()
            if self._current is not None:
                left.insert(0, self._current)
            self._cancel_chats()
            chats = [*([] if self._chat is None else [self._chat]), *self._chats]
            self._chats.clear()
        for job in left:
            job.answer(Outcome(code=protocol.FAILED, text=_DIED))
        for chat in chats:
            chat.fail(StoppingError(_DIED))
        self._on_death(error)


def _dropped(job: Job) -> str:
    waited_ms = 1e3 * (time.monotonic() - job.arrived_s)
    return f"the request was dropped after {waited_ms:.1f} ms\n  why:      a newer observation of this client came"


def _close(resident: Resident) -> None:
    try:
        resident.close()
    except Exception as error:  # noqa: BLE001 -- what is served goes on
        LOG.error("a bundle's engines could not be freed: %s", error)
