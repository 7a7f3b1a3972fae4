"""A program that prints a line of readings every now and then, read in the background."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Sequence
from typing import Optional

from motedge.profile.sensors.sensor import SensorAbsentError

# Until the first line comes, and until a program that was told to end has ended
_FIRST_LINE_S, _END_S = 5.0, 2.0


class LineProgram:
    """Starts a program and keeps its latest line."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: Optional[subprocess.Popen[str]] = None
        self._latest: Optional[str] = None
        self._first = threading.Event()

    def start(self) -> None:
        """Starts it and waits for a line.

        Raises:
            SensorAbsentError: there is no such program, it fails, or it says nothing.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise SensorAbsentError(f"{self._command[0]} can't be started: {error.strerror}") from error
        threading.Thread(target=self._follow, name=f"motedge-{self._command[0]}", daemon=True).start()
        if not self._first.wait(_FIRST_LINE_S) or self._latest is None:
            said = "it ended without a line" if self._first.is_set() else f"no line within {_FIRST_LINE_S:g} s"
            self.stop()
            raise SensorAbsentError(f"{self._command[0]}: {said}")

    def latest(self) -> str:
        """The last whole line.

        Raises:
            SensorAbsentError: the program has ended.
        """
        if self._process is None or self._latest is None or self._process.poll() is not None:
            raise SensorAbsentError(f"{self._command[0]} has ended")
        return self._latest

    def stop(self) -> None:
        """Ends it; harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _follow(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        with process.stdout as lines, contextlib.suppress(ValueError):
            for line in lines:
                if line.strip():
                    self._latest = line.strip()
                    self._first.set()
        self._first.set()
