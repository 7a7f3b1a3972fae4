"""Ticks that a recorder kept: `motedge run --recorder`, `motedge serve --recorder`, a ring of segments.

What the policy answered is not looked at: an observation whose deadline was missed is one all the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder.segment import Damage, read_segment, segments
from motedge.runtime.recorder.tick_record import TICK, Recorded, decode

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    """Where a tick lies."""

    segment: Path
    sequence: int


class RecordedTicks:
    """The observations of a ring, by session, in order of time. The ring is read once when opened."""

    kind = "recording"

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """`instruction` takes the place of the recorded ones.

        Raises:
            DataError: no tick whose observation was recorded whole.
        """
        self.root, self.name, self._instruction = root, root.resolve().name, instruction
        self._places: dict[Moment, _Place] = {}
        self._ticks = self._repeats = self._lacking = 0
        self._damage: list[Damage] = []
        self._files = [path for _, path in segments(root)]
        self._read()
        if not self._places:
            raise DataError(
                f"{root} holds no observation",
                expected="ticks with all their pictures",
                got=f"{self._ticks} ticks, {self._lacking} of them without a picture",
                fix="record with motedge serve or run --recorder DIR, with frames in host memory",
            )
        for note in self.notes:
            _log.warning("%s: %s", self.name, note)

    @property
    def notes(self) -> tuple[str, ...]:
        """Ticks that are not used, and damage."""
        found = []
        if self._repeats:
            found.append(f"{self._repeats} of {self._ticks} ticks repeat an earlier observation and are left out")
        if self._lacking:
            found.append(f"{self._lacking} of {self._ticks} ticks lack a picture or are damaged and are left out")
        if self._damage:
            found.append(f"{len(self._damage)} places of the ring can't be read")
        return tuple(found)

    def moments(self) -> list[Moment]:
        """One for each different observation."""
        return list(self._places)

    def observation(self, moment: Moment) -> Observation:
        """One tick's observation; a `PromptedObservation` where the prompt was not the instruction's own.

        Another instruction than the recorded one goes without: the prompt was made of the latter.

        Raises:
            DataError: there is no such tick, or not any more.
        """
        place = self._places.get(moment)
        if place is None:
            raise DataError(f"{self.name} has no tick {moment.index} in session {moment.group!r}")
        for entry, sequence in _ticks_of(place.segment, []):
            if sequence == place.sequence:
                return self._told(entry)
        raise DataError(f"{place.segment} changed while it was read", fix="stop the recorder first, or copy the folder")

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        return fingerprint_files(self.root, self._files, self._instruction or "")

    def _told(self, entry: Recorded) -> Observation:
        seen = entry.observation()
        if self._instruction is not None:
            fields = {name: getattr(seen, name) for name in ("joint_position", "gripper_position", "views", "image")}
            return Observation(**fields, instruction=self._instruction, source=seen.source)
        prompt = entry.document.get("prompt")
        return seen if not isinstance(prompt, str) else PromptedObservation.of(seen, prompt)

    def _read(self) -> None:
        known: set[bytes] = set()
        counts: dict[str, int] = {}
        for path in self._files:
            for entry, sequence in _ticks_of(path, self._damage):
                self._ticks += 1
                try:
                    seen = self._told(entry)
                except DataError:
                    self._lacking += 1
                    continue
                content = _content(seen)
                if content in known:
                    self._repeats += 1
                    continue
                known.add(content)
                session = str(entry.document.get("session", ""))
                self._places[Moment(session, counts.get(session, 0))] = _Place(path, sequence)
                counts[session] = counts.get(session, 0) + 1


def _ticks_of(path: Path, damage: list[Damage]) -> Iterator[tuple[Recorded, int]]:
    """Ticks of a segment that can be decoded, with their sequence."""
    for record in read_segment(path, damage):
        try:
            entry = decode(record.payload)
        except DataError as error:
            damage.append(Damage(path.name, 0, "damaged", str(error).splitlines()[0]))
            continue
        if entry.kind == TICK:
            yield entry, record.sequence


def _content(seen: Observation) -> bytes:
    """sha256 of what was observed, and of the prompt if it was not the instruction's own."""
    prompt = seen.prompt if isinstance(seen, PromptedObservation) else None
    said = json.dumps([seen.instruction, prompt, seen.gripper_position])
    digest = hashlib.sha256(said.encode())
    digest.update(seen.joint_position.tobytes())
    if seen.image is not None:
        digest.update(str(seen.image.shape).encode() + seen.image.tobytes())
    for name, view in sorted(seen.host_views().items()):
        digest.update(f"{name} {view.shape}".encode() + view.tobytes())
    return digest.digest()
