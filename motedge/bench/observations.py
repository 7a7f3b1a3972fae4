"""The observations of a bench: folders, recorded requests, or a recorder's ring."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from motedge.errors import ObservationError, UsageError
from motedge.files import PathLike
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import FILE, read_observation
from motedge.runtime.policy.request_record import recorded_prompt
from motedge.runtime.recorder.replay import recorded_ticks
from motedge.runtime.recorder.ring_reader import RingReader
from motedge.runtime.recorder.segment import segments


@dataclass(frozen=True)
class Scene:
    """What a policy is asked."""

    # For people
    name: str
    observation: Observation
    # The whole text that the model is given; None: the one that the instruction makes
    prompt: Optional[str]
    # Of what it was read from
    sha256: str


def read_scenes(folders: Sequence[PathLike], embodiment: str, most: int) -> list[Scene]:
    """Reads them all, then takes at most so many, evenly spread.

    Args:
        folders: each an observation, a folder of them (motedge run --record) or of such folders, or a ring (motedge run
            --recorder).
        embodiment: of the bundle.
        most: at most so many are taken.

    Raises:
        ObservationError: a folder has none, one is damaged, or one was recorded of another robot.
        DataError: a tick of a ring is damaged.
        UsageError: none may be taken.
    """
    if most < 1:
        raise UsageError("a bench needs an observation", expected="at least 1 to be taken", got=most)
    places = [place for folder in folders for place in _places(Path(folder))]
    count = min(most, len(places))
    chosen = [places[len(places) * number // count] for number in range(count)]
    found = {place: _of_folder(*place) for place in chosen if isinstance(place[1], Path)}
    for root in {root for root, where in chosen if isinstance(where, int)}:
        found.update(_of_ring(root, {number for other, number in chosen if other == root}, embodiment))
    # A ring that is written meanwhile may have lost one
    return [found[place] for place in chosen if place in found]


def _places(root: Path) -> list[tuple[Path, Union[Path, int]]]:
    """(What was given, folder of an observation or number of a tick in a ring), nothing read yet."""
    if segments(root):
        ticks = sum(1 for _ in recorded_ticks(RingReader(root)))
        if not ticks:
            raise ObservationError(f"no tick in {root} can be read", fix="motedge replay DIR --list says what is there")
        return [(root, number) for number in range(ticks)]
    folders: list[Path] = []
    # Several runs may each have recorded into a folder of their own
    for depth in ("", "*/", "*/*/"):
        folders = folders or sorted(path.parent for path in root.glob(f"{depth}{FILE}"))
    if not folders:
        raise ObservationError(
            f"there is no observation in {root}",
            expected=f"a folder with {FILE}, a folder of such folders or of folders of them, or a ring of motedge run "
            "--recorder",
            fix="check the path",
        )
    return [(root, folder) for folder in folders]


def _of_folder(root: Path, folder: Any) -> Scene:
    name = folder.name if folder == root else f"{root.name}/{folder.relative_to(root).as_posix()}"
    return Scene(name, read_observation(folder), recorded_prompt(folder), _digest(folder))


def _of_ring(root: Path, numbers: set[Any], embodiment: str) -> dict[tuple[Path, Union[Path, int]], Scene]:
    """The chosen ticks alone are kept: a ring may be larger than the memory."""
    found: dict[tuple[Path, Union[Path, int]], Scene] = {}
    for number, (_, tick) in enumerate(recorded_ticks(RingReader(root))):
        if number not in numbers:
            continue
        seen = tick.document.get("reply", {}).get("embodiment", embodiment)
        if seen != embodiment:
            raise ObservationError(
                f"{root} was recorded of another robot", expected=f"embodiment {embodiment!r}", got=repr(seen)
            )
        digest = hashlib.sha256(str(tick.document.get("observation")).encode())
        for name, array in sorted(tick.arrays.items()):
            digest.update(name.encode() + array.tobytes())
        title = f"{root.name}/tick {tick.document.get('number', number)}"
        found[root, number] = Scene(title, tick.observation(), tick.document.get("prompt"), digest.hexdigest())
    return found


def _digest(folder: Path) -> str:
    """Of every file of an observation's folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
