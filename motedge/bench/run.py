"""The work of a bench: cells in turn, what is there already left out, whatever fails noted and passed over."""

from __future__ import annotations

import datetime
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from motedge.bench.candidate import Candidate
from motedge.bench.journal import Journal
from motedge.bench.options import BenchOptions
from motedge.bench.session import Working, facts
from motedge.bench.state import (
    ANSWERS,
    BESIDE,
    DONE,
    ENERGY,
    FAILED,
    MEMORY,
    OPENED,
    RETRIED,
    SESSION,
    TIMES,
    Cell,
    CellState,
    is_done,
    states,
)
from motedge.bench.worker import CellError, WorkerGoneError
from motedge.errors import HostError, MotedgeError, ObservationError
from motedge.profile.energy import Energy, energy_between, energy_report
from motedge.profile.options import SETTLING_S
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import ENERGY_J, POWER_W

LOG = logging.getLogger(__name__)
# Told of each piece of work: phase, number, count, cell, or candidate where one is loaded
Progress = Callable[[str, int, int, str], None]
# Opens a candidate
Opener = Callable[[Candidate], Working]


class BenchRun:
    """Fills a journal.

    Args:
        cells: all of them; those of one candidate are together.
        options: how.
        journal: what is there already, and where to write.
        opener: opens a candidate; its errors, and those of what it opens, are noted as the cell's.
        sampler: opened.
        lead_in: ticks at the beginning of a turn that don't count.
        progress: is told what is done.
        after_round: called after every round, to show what there is.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        options: BenchOptions,
        journal: Journal,
        opener: Opener,
        sampler: Sampler,
        *,
        lead_in: int = 1,
        progress: Optional[Progress] = None,
        after_round: Optional[Callable[[], None]] = None,
    ) -> None:
        self._cells, self._options, self._journal, self._opener = list(cells), options, journal, opener
        self._sampler, self._lead_in, self._progress = sampler, lead_in, progress
        self._after_round = after_round or (lambda: None)
        self._open: dict[str, Working] = {}
        # Candidates that can't be opened, and why
        self._broken: dict[str, str] = {}
        # Cells that were timed in this session, which has this number
        self._warm: set[str] = set()
        self._session = 0
        # What whoever watches was told last
        self._now_at: Optional[tuple[str, int, int, str]] = None
        # Power of the machine at rest, once it is needed
        self._idle: Optional[list[Energy]] = None

    def run(self, *, retry: bool = False) -> None:
        """Does what is still to be done; nothing where a bench came to its end, unless failed cells are tried again.

        Raises:
            ObservationError: the policy can't take an observation: no cell could.
            HostError: the journal can't be written.
            KeyboardInterrupt: as it came; what was measured is there.
        """
        failed = [cell for cell, state in self._pairs() if state.failed is not None]
        if retry and failed:
            self._journal.append(RETRIED, cells=[cell.id for cell in failed])
        elif is_done(self._journal.lines):
            return
        load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
        self._session = len(self._journal.of_kind(SESSION))
        self._journal.append(SESSION, time=_now(), load_average=load, absent=dict(self._sampler.log.absent))
        try:
            for group in self._groups():
                self._run_group(group)
        finally:
            self._close_all()
        self._journal.append(DONE, time=_now())

    def _groups(self) -> Iterator[list[Cell]]:
        if not self._options.one_at_a_time:
            yield self._cells
            return
        for candidate in dict.fromkeys(cell.candidate for cell in self._cells):
            yield [cell for cell in self._cells if cell.candidate == candidate]

    def _run_group(self, group: Sequence[Cell]) -> None:
        for cell in self._pending("actions", group, lambda state: state.answers is None):
            self._attempt(cell, self._answer)
        self._after_round()
        for turn in range(self._options.rounds):
            kinds = self._of_turn(turn, group)
            for cell in self._told(f"round {turn + 1} of {self._options.rounds}", list(kinds)):
                # What fails beside others has its own turns all the same
                time_it = functools.partial(self._time, turn, kinds[cell])
                self._attempt(cell, time_it, noted=kinds[cell] == TIMES)
            self._after_round()
        for candidate in dict.fromkeys(cell.candidate for cell in group):
            self._weigh([cell for cell in group if cell.candidate == candidate])
        if self._options.energy_s and self._power_is_read():
            self._spend(group)
        self._close_all()

    def _answer(self, work: Working, cell: Cell) -> None:
        self._journal.append(ANSWERS, cell=cell.id, **facts(work.answers(cell.point.settings, self._options.seed)))

    def _of_turn(self, turn: int, group: Sequence[Cell]) -> dict[Cell, str]:
        """Cells that have the turn still to come, in its order -> TIMES. The reference is among them whenever there are
        any, as BESIDE where it has had that turn in an earlier session: what is timed now can be held against what the
        machine does now, and nothing else."""
        sound = {cell: state for cell, state in self._pairs() if cell in group and state.failed is None}
        coming = [cell for cell, state in sound.items() if turn not in state.turns]
        taking = [cell for cell in sound if cell in coming or (coming and cell == self._cells[0])]
        return {c: TIMES if c in coming else BESIDE for c in turn_order(group, turn) if c in taking}

    def _time(self, turn: int, kind: str, work: Working, cell: Cell) -> None:
        first = self._options.repeat * turn // self._options.rounds
        lead_in = self._lead_in if cell.id in self._warm else max(self._lead_in, self._options.warm_up)
        with self._sampler.quiet():
            times = work.times(cell.point.settings, lead_in, self._options.ticks_of(turn), first)
        self._warm.add(cell.id)
        self._journal.append(kind, cell=cell.id, turn=turn, session=self._session, **facts(times))

    def _weigh(self, cells: Sequence[Cell]) -> None:
        """The memory of a candidate's process after all of its cells."""
        name = cells[0].candidate.name
        known = any(line["candidate"] == name for line in self._journal.of_kind(MEMORY))
        sound = [cell for cell, state in self._pairs() if cell in cells and state.failed is None]
        if known or not sound:
            return

        def weigh(work: Working, cell: Cell) -> None:
            for one in sound:
                if one.id not in self._warm:
                    # Opened for less than all of them: what their ticks take is not there yet
                    work.times(one.point.settings, self._lead_in, 1, 0)
                    self._warm.add(one.id)
            self._journal.append(MEMORY, candidate=name, **facts(work.memory()))

        self._attempt(sound[0], weigh)

    def _spend(self, group: Sequence[Cell]) -> None:
        """Energy of each cell, by ticks that don't count as times."""
        self._idle = None
        found = states(self._journal.lines, self._cells)
        lacking = [cell for cell in group if found[cell.id].failed is None and found[cell.id].energy is None]
        for candidate in dict.fromkeys(cell.candidate for cell in lacking):
            # Whatever is to be measured is loaded while the machine rests, since that is what ticks are seen against
            first = next(cell for cell in lacking if cell.candidate == candidate)
            self._attempt(first, lambda work, cell: None)
        for cell in self._pending("energy", group, lambda state: state.energy is None):
            self._attempt(cell, self._measure_energy)

    def _measure_energy(self, work: Working, cell: Cell) -> None:
        if self._idle is None:
            start_s = time.perf_counter()
            time.sleep(self._options.idle_s)
            self._idle = energy_between(self._sampler.log, start_s + SETTLING_S, time.perf_counter())
        found = work.stretch(cell.point.settings, self._lead_in, self._options.energy_s)
        # A reading after the end, between which and the one before the end is found
        self._sampler.sample()
        spent = energy_between(self._sampler.log, found.start_s, found.end_s)
        report = energy_report(spent, self._idle, self._sampler.parts, found.ticks)
        self._journal.append(ENERGY, cell=cell.id, energy=report)

    def _power_is_read(self) -> bool:
        self._sampler.sample()
        return any(channel.kind in (POWER_W, ENERGY_J) for channel in self._sampler.log.channels())

    def _pairs(self) -> list[tuple[Cell, CellState]]:
        found = states(self._journal.lines, self._cells)
        return [(cell, found[cell.id]) for cell in self._cells]

    def _pending(self, phase: str, cells: Sequence[Cell], lacks: Callable[[CellState], bool]) -> Iterator[Cell]:
        """Those of which something is still to be done and that have not failed, in this order."""
        found = states(self._journal.lines, self._cells)
        wanted = [cell for cell in cells if found[cell.id].failed is None and lacks(found[cell.id])]
        yield from self._told(phase, wanted)

    def _told(self, phase: str, cells: Sequence[Cell]) -> Iterator[Cell]:
        """All of them, after whoever watches was told of each."""
        for number, cell in enumerate(cells):
            self._now_at = phase, number, len(cells), cell.id
            self._tell(*self._now_at)
            LOG.debug("%s, %s", phase, cell.id)
            yield cell

    def _tell(self, phase: str, number: int, count: int, name: str) -> None:
        if self._progress is not None:
            self._progress(phase, number, count, name)

    def _attempt(self, cell: Cell, work: Callable[[Working, Cell], None], *, noted: bool = True) -> None:
        """Does it; what goes wrong is noted as the cell's, which is then left alone, or only logged."""
        try:
            work(self._working(cell.candidate), cell)
        except (ObservationError, HostError):
            # Of an observation no recipe can make anything; without a disk nothing is kept
            raise
        except MotedgeError as error:
            if isinstance(error, WorkerGoneError):
                self._open.pop(cell.candidate.name).close()
                # The next process begins anew
                self._warm -= {one.id for one in self._cells if one.candidate == cell.candidate}
            LOG.warning("%s: %s", cell.id, str(error).splitlines()[0])
            if noted:
                self._journal.append(FAILED, cell=cell.id, error=str(error))

    def _working(self, candidate: Candidate) -> Working:
        if candidate.name in self._broken:
            raise CellError(self._broken[candidate.name])
        if candidate.name not in self._open:
            names = list(dict.fromkeys(cell.candidate.name for cell in self._cells))
            self._tell("loading", names.index(candidate.name), len(names), candidate.name)
            start_s = time.perf_counter()
            try:
                self._open[candidate.name] = self._opener(candidate)
            except ObservationError:
                raise
            except MotedgeError as error:
                self._broken[candidate.name] = str(error)
                raise CellError(str(error)) from error
            self._journal.append(OPENED, candidate=candidate.name, load_s=round(time.perf_counter() - start_s, 4))
            if self._now_at is not None:
                # It may have taken minutes: back to what it was loaded for
                self._tell(*self._now_at)
        return self._open[candidate.name]

    def _close_all(self) -> None:
        while self._open:
            _, work = self._open.popitem()
            work.close()


def turn_order(cells: Sequence[Cell], turn: int) -> list[Cell]:
    """Mixed anew in every second round, so that another program's burst falls on cells that have nothing in common; in
    between backwards, so that what drifts falls on all alike. The same whenever it is asked for."""
    order = list(cells)
    random.Random(turn // 2).shuffle(order)
    return order if turn % 2 == 0 else order[::-1]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
