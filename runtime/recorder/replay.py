"""Runs recorded ticks again and compares the actions, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Optional, Protocol

import numpy as np

from motedge.errors import DataError, MotedgeError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.chunk import FRESH, ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder.ring_reader import RingReader
from motedge.runtime.recorder.tick_record import SESSION, TICK, Recorded, decode
from motedge.runtime.request import SamplerSettings

SAME, DIFFERENT, SKIPPED = "same", "different", "skipped"


@dataclass(frozen=True)
class Replayed:
    """What became of one tick."""

    number: int
    session: str
    # SAME: every bit of every action; DIFFERENT; SKIPPED: it can't be run again
    outcome: str
    # Why it was skipped
    why: Optional[str] = None
    # Greatest difference of an action, in its unit; 0 where the outcome is SAME
    largest: Optional[float] = None
    # Of the tick as it was recorded and now, ms
    recorded_ms: Optional[float] = None
    replayed_ms: Optional[float] = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class Acts(Protocol):
    """What runs ticks again. `motedge.runtime.policy.Policy` is one."""

    def act(
        self,
        observation: Observation,
        *,
        seed: Optional[int] = None,
        settings: Optional[SamplerSettings] = None,
        committed: Optional[FloatArray] = None,
        prompt: Optional[str] = None,
    ) -> ActionChunk:
        """The next chunk of actions."""
        ...


def recorded_ticks(reader: RingReader) -> Iterator[tuple[Optional[Recorded], Recorded]]:
    """(Session, tick) of everything in a ring, the oldest first; a session is None where its record is gone.

    A record that can't be decoded is one more damage of the reader.
    """
    sessions: dict[str, Recorded] = {}
    for record in reader:
        try:
            entry = decode(record.payload)
        except DataError:
            reader.lost += 1
            continue
        if entry.kind == SESSION:
            sessions[str(entry.document.get("session"))] = entry
        elif entry.kind == TICK:
            yield sessions.get(str(entry.document.get("session"))), entry


def replay_tick(policy: Acts, tick: Recorded) -> Replayed:
    """Runs one tick again; an error of the policy is its outcome."""
    number, session = int(tick.document.get("number", -1)), str(tick.document.get("session"))
    reply = tick.document.get("reply")
    recorded = tick.arrays.get("actions")
    if not isinstance(reply, dict) or recorded is None:
        return Replayed(number, session, SKIPPED, "its reply was not recorded whole")
    if reply.get("kind") != FRESH:
        return Replayed(number, session, SKIPPED, "it was answered with an earlier chunk: the deadline was missed")
    try:
        chunk = policy.act(
            tick.observation(),
            seed=int(tick.document["seed"]),
            settings=tick.settings(),
            committed=tick.arrays.get("committed"),
            prompt=tick.document.get("prompt"),
        )
    except (MotedgeError, KeyError, TypeError, ValueError) as error:
        return Replayed(number, session, SKIPPED, str(error).splitlines()[0])
    same = chunk.actions.shape == recorded.shape and chunk.actions.tobytes() == recorded.tobytes()
    largest: Optional[float] = 0.0
    if not same:
        fits = chunk.actions.shape == recorded.shape
        largest = float(np.abs(chunk.actions.astype(np.float64) - recorded).max()) if fits else None
    times = reply.get("timings_ms") or {}
    return Replayed(
        number,
        session,
        SAME if same else DIFFERENT,
        None if largest is not None else f"{recorded.shape} when recorded, {chunk.actions.shape} now",
        largest,
        times.get("total_ms"),
        round(chunk.timings_ms["total_ms"], 3),
    )
