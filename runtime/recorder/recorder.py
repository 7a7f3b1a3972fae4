"""Records ticks beside a running policy: it waits for nothing, and a full disk ends the recording, not the robot."""

from __future__ import annotations

import contextlib
import datetime
import logging
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import HostError, MotedgeError, UsageError
from motedge.files import PathLike
from motedge.runtime.engine import Array
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder.ring_writer import RingWriter
from motedge.runtime.recorder.tick_record import SESSION, TICK, encode, tick_document
from motedge.runtime.request import SamplerSettings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecorderOptions:
    """How ticks are recorded."""

    # What the ring may take of the disk
    max_bytes: int = 1 << 30
    # Ticks that wait to be written; those beyond are left out, and counted
    waiting: int = 8
    # Whether the disk is waited for after every tick, so that a loss of power loses none
    durable: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.waiting, bool) or not isinstance(self.waiting, int) or self.waiting < 1:
            raise UsageError("the recorder's queue is wrong", expected="at least 1", got=self.waiting)


@dataclass
class RecorderCounters:
    """What became of the ticks."""

    written: int = 0
    # The disk was slower than the ticks
    dropped: int = 0
    # They came after the recording had failed, or were too large
    refused: int = 0
    # Why the recording ended, if it did
    failure: Optional[str] = None


class TickRecorder:
    """Writes ticks into a ring in a thread of its own. `record` may be called from any thread.

    Args:
        folder: of the ring.
        session: what the ticks have in common, JSON: bundle and its hash, engine, variants, versions, machine. It is
            written at the head of each segment.
        options: how.

    Raises:
        UsageError: the folder can't hold a ring.
        HostError: it can't be written, or another process records there.
    """

    def __init__(self, folder: PathLike, session: Mapping[str, Any], options: Optional[RecorderOptions] = None) -> None:
        self._options = options or RecorderOptions()
        self._session = {"session": uuid.uuid4().hex, "began": _now(), **session}
        self._ring = RingWriter(
            folder,
            self._options.max_bytes,
            head=lambda: encode(SESSION, self._session),
            durable=self._options.durable,
        )
        self.counters = RecorderCounters()
        self._number, self._warned = 0, False
        self._waiting: queue.Queue[Optional[tuple[dict[str, Any], dict[str, Array]]]]
        self._waiting = queue.Queue(self._options.waiting)
        self._thread = threading.Thread(target=self._serve, name="motedge-recorder", daemon=True)
        self._thread.start()
        # Whether ticks are refused, and whether the thread has been told
        self._closed = self._ended = False

    def record(
        self,
        observation: Observation,
        chunk: ActionChunk,
        settings: SamplerSettings,
        *,
        committed: Optional[Array] = None,
        prompt: Optional[str] = None,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> bool:
        """Copies a tick and has it written; whether it will be. Never waits for the disk.

        Args:
            observation, chunk, settings, committed, prompt: as `tick_document` takes them.
            extra: more of the tick, JSON: who asked, when it was received.
        """
        if self._closed or self.counters.failure is not None:
            self.counters.refused += 1
            return False
        document, arrays = tick_document(observation, chunk, settings, committed=committed, prompt=prompt)
        document.update({"session": self._session["session"], "number": self._number, "time": _now()})
        document.update({"monotonic_s": round(time.monotonic(), 6), "extra": dict(extra or {})})
        self._number += 1
        try:
            self._waiting.put_nowait((document, arrays))
        except queue.Full:
            self.counters.dropped += 1
            return False
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what waits and ends; harmless when repeated.

        Raises:
            HostError: the disk takes longer than `timeout_s`.
        """
        self._closed = True
        until_s = time.monotonic() + timeout_s
        if not self._ended:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=timeout_s)
                self._ended = True
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            raise HostError("the recording is still being written", expected=f"an end within {timeout_s:g} s")

    def __enter__(self) -> TickRecorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            item = self._waiting.get()
            if item is None:
                break
            self._write(*item)
            # Its arrays do not outlive it in this frame
            del item
        self._ring.close()

    def _write(self, document: dict[str, Any], arrays: dict[str, Array]) -> None:
        if self.counters.failure is not None:
            self.counters.refused += 1
            return
        try:
            self._ring.append(encode(TICK, document, arrays))
            self.counters.written += 1
        except UsageError as error:
            # This one is too large; others may not be
            self.counters.refused += 1
            if not self._warned:
                LOG.warning("a tick is not recorded: %s", error)
            self._warned = True
        except (MotedgeError, OSError, ValueError) as error:
            self.counters.refused += 1
            self.counters.failure = str(error).splitlines()[0]
            LOG.warning("nothing is recorded any more: %s", error)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
