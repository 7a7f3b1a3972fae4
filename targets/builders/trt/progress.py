"""The library's progress monitor -> one phase and one share."""

from __future__ import annotations

from typing import Any

from motedge.targets.builders.builder import Progress

# Calls less than this share apart are not passed on: a build has thousands of steps
_STEP = 0.01


class PhaseTracker:
    """Nested phases with numbers of steps -> the outermost phase's share, the innermost one's name.

    A phase that is begun inside a step of another one fills that step.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Name, steps in all, steps done; the outermost first
        self._phases: list[list[Any]] = []
        self._last = ("", -1.0)

    def start(self, name: str, steps: int) -> None:
        """A phase begins inside the current one."""
        self._phases.append([name, max(int(steps), 1), 0])
        self._report()

    def step(self, name: str, step: int) -> None:
        """A step (counted from 0) of a phase is done."""
        for phase in self._phases:
            if phase[0] == name:
                phase[2] = min(int(step) + 1, phase[1])
        self._report()

    def finish(self, name: str) -> None:
        """A phase is over, and with it what was begun inside it."""
        names = [phase[0] for phase in self._phases]
        if name in names:
            del self._phases[len(names) - 1 - names[::-1].index(name) :]
        self._report()

    def share(self) -> float:
        """0 to 1, of the outermost phase."""
        share, width = 0.0, 1.0
        for _, steps, done in self._phases:
            share += width * done / steps
            width /= steps
        return min(share, 1.0)

    def _report(self) -> None:
        if not self._phases:
            return
        now = (self._phases[-1][0], self.share())
        if (now[0] != self._last[0] and now[1] >= self._last[1]) or now[1] - self._last[1] >= _STEP:
            self._last = now
            self._progress(*now)


def make_monitor(api: Any, tracker: PhaseTracker) -> Any:
    """An IProgressMonitor that feeds the tracker. A function, since its base class is the library's."""

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: Any, steps: int) -> None:
            tracker.start(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            tracker.step(name, step)
            return True

        def phase_finish(self, name: str) -> None:
            tracker.finish(name)

    return Monitor()
