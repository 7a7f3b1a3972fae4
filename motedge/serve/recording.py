"""The ring on disk in which one loaded bundle's ticks are kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import MotedgeError
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.recorder import RecorderOptions, TickRecorder
from motedge.runtime.recorder.session import session_of
from motedge.runtime.request import SamplerSettings
from motedge.serve.policy_request import PolicyRequest

LOG = logging.getLogger(__name__)
# What is still being written when another bundle takes over, or the server ends
_CLOSE_S = 2.0


@dataclass(frozen=True)
class RecordingChoice:
    """Where ticks are kept, and what the ring may take of the disk."""

    folder: Path
    max_bytes: int
    # The machine that actions come from, in words
    machine: Optional[str] = None


class Recording:
    """Keeps ticks; whatever happens to the disk, the robot is answered. For one thread."""

    def __init__(self, choice: RecordingChoice, session: Mapping[str, Any], settings: SamplerSettings) -> None:
        """Nothing is opened yet: `settings` are the policy's."""
        self._choice, self._session, self._settings = choice, session, settings
        self._recorder: Optional[TickRecorder] = None
        self._ended = False

    def open(self) -> None:
        """Takes the ring, which no other bundle may have at the time.

        Raises:
            UsageError, HostError: as `TickRecorder`.
        """
        options = RecorderOptions(max_bytes=self._choice.max_bytes)
        self._recorder = TickRecorder(self._choice.folder, self._session, options)

    def keep(self, request: PolicyRequest, chunk: ActionChunk) -> None:
        """Has a tick written; opens the ring first, if that was not done."""
        if self._ended:
            return
        try:
            if self._recorder is None:
                self.open()
            if self._recorder is not None:
                extra = {"request_id": request.request_id, "deadline_ms": request.deadline_ms}
                self._recorder.record(
                    request.observation, chunk, self._settings, committed=request.committed, extra=extra
                )
        except MotedgeError as error:
            self._ended = True
            LOG.error("nothing is recorded any more: %s", error)

    def close(self) -> None:
        """Writes what waits, and gives the ring to the next bundle."""
        self._ended = True
        if self._recorder is not None:
            counters = self._recorder.counters
            try:
                self._recorder.close(_CLOSE_S)
            except MotedgeError as error:
                LOG.error("the end of the recording may be missing: %s", error)
            LOG.info("recorded %d ticks; %d left out", counters.written, counters.dropped + counters.refused)


def recording_of(
    choice: RecordingChoice, root: Path, engines: Mapping[str, Any], settings: SamplerSettings
) -> Recording:
    """Of a bundle, opened with `engines`, what `load_policy` takes.

    Raises:
        BundleError, UsageError: as `session_of`.
    """
    given = {name: engines.get(name) for name in ("variant", "recipe", "threads")}
    session = session_of(root, engine=engines.get("engine") or "onnxruntime", machine=choice.machine, **given)
    target = getattr(engines.get("gpu"), "target", None)
    return Recording(choice, {**session, "target": target}, settings)
