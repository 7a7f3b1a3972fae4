"""Which video file shows an episode of a LeRobot data set, and where in it. The files decide which cameras there are.

v3:   videos/<camera>/chunk-*/file-*.mp4, several episodes a file; meta/episodes says from when to when, in s
v2.1: videos/chunk-*/<camera>/episode_*.mp4
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.errors import DataError
from motedge.quant.datasets.parquet_tables import column_names, read_columns
from motedge.runtime.policy.views import VIEW_NAMES

# Words in a camera's name -> its place in the policy's picture. The second exterior camera's left eye is the one over
# the right shoulder
_WORDS = {
    "wrist": ("wrist",),
    "left": ("exterior_image_1", "exterior_1"),
    "right": ("exterior_image_2", "exterior_2"),
}
# A vehicle's, which looks ahead; only where there is none of a robot's
EGO = "ego"
_EGO_WORDS = ("ego", "front")
# Fields of meta/episodes for each camera, after "videos/<camera>/" (LeRobot v3)
_PLACE = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


@dataclass(frozen=True)
class Stretch:
    """The part of a video file that shows one episode."""

    video: Path
    # From when to when in the file, s
    start_s: float
    end_s: float


class EpisodeVideos:
    """Videos of a data set, by the policy's view and the episode's number."""

    def __init__(self, root: Path, *, old: bool, episodes: int) -> None:
        """Looks for video files; opens none.

        Args:
            root: the data set.
            old: laid out as v2.1.
            episodes: how many the tables hold.

        Raises:
            DataError: no camera that the policy knows.
        """
        self.root, self._old, self._episodes = root, old, episodes
        self._files = sorted((root / "videos").rglob("*.mp4"))
        names = sorted({self._camera_of(path) for path in self._files})
        self.cameras, self.notes = _choose(names)
        if not self.cameras:
            raise DataError(
                f"{root} has no camera that the policy knows",
                expected="a video folder with wrist, exterior_1 or exterior_2 in its name; a vehicle's ego or front",
                got=", ".join(names) or "no mp4 file below videos/",
            )
        self._known = frozenset(self._files)
        self._by_stem = {(self._camera_of(path), path.stem): path for path in self._files} if old else {}
        self._places = {} if old else self._read_places()

    def files(self) -> list[Path]:
        """Every file of the cameras that are read."""
        return [path for path in self._files if self._camera_of(path) in self.cameras.values()]

    def find(self, view: str, episode: int) -> Stretch:
        """Where an episode is seen; DataError where it is not said, or where the file is not there."""
        camera = self.cameras[view]
        if self._old:
            path = self._by_stem.get((camera, f"episode_{episode:06d}"))
            if path is None:
                raise DataError(f"episode {episode} has no video of the {view} camera", fix="fetch the data set again")
            return Stretch(path, 0.0, math.inf)
        place = self._places.get(episode, {})
        chunk, file, start, end = (place.get(f"videos/{camera}/{part}") for part in _PLACE)
        if chunk is None or file is None or start is None:
            return self._only_one(view, episode, place)
        path = self.root / "videos" / camera / f"chunk-{int(chunk):03d}" / f"file-{int(file):03d}.mp4"
        if path not in self._known:
            raise DataError(f"video {path.relative_to(self.root)} is missing", fix="fetch the data set again")
        return Stretch(path, float(start), math.inf if end is None else float(end))

    def _only_one(self, view: str, episode: int, place: Mapping[str, Any]) -> Stretch:
        """One episode and one file belong together, whatever meta says; more are not guessed."""
        files = [path for path in self._files if self._camera_of(path) == self.cameras[view]]
        said = [name for name, value in place.items() if value is not None and name.startswith("videos/")]
        if self._episodes > 1 or len(files) > 1 or said:
            raise DataError(
                f"where episode {episode} lies in the {view} camera's video is not said",
                expected=f"videos/{self.cameras[view]}/ with {', '.join(_PLACE)} in meta/episodes",
                got=", ".join(said) or "no place in a video",
                fix="fetch meta/episodes again",
            )
        return Stretch(files[0], 0.0, math.inf)

    def _camera_of(self, path: Path) -> str:
        return path.parts[-2] if self._old else path.parts[-3]

    def _read_places(self) -> dict[int, Mapping[str, Any]]:
        """Episode -> its row of meta/episodes. Statistics, which fill most of that table, are not read."""
        found: dict[int, Mapping[str, Any]] = {}
        for path in sorted((self.root / "meta" / "episodes").rglob("*.parquet")):
            wanted = {"episode_index", *(name for name in column_names(path) if name.startswith("videos/"))}
            table = read_columns(path, wanted)
            for at, number in enumerate(table.get("episode_index", ())):
                found[int(number)] = {name: values[at] for name, values in table.items()}
        return found


def _choose(names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """View -> camera, and notes. DROID's policies were trained on left eyes; depth pictures show no colours."""
    chosen, notes = {}, []
    for view in VIEW_NAMES:
        fitting = [name for name in names if any(word in name for word in _WORDS[view]) and "depth" not in name]
        if fitting:
            chosen[view] = min(fitting, key=lambda name: (not name.endswith("left"), name))
        if len(fitting) > 1:
            notes.append(f"{len(fitting)} cameras fit the {view} view: {chosen[view]} is taken")
    ahead = [name for name in names if any(word in name for word in _EGO_WORDS) and "depth" not in name]
    if not chosen and ahead:
        more = (f"{len(ahead)} cameras look ahead: {ahead[0]} is taken",) if len(ahead) > 1 else ()
        return {EGO: ahead[0]}, more
    absent = [view for view in VIEW_NAMES if view not in chosen]
    if absent:
        notes.insert(0, f"{len(absent)} of {len(VIEW_NAMES)} cameras are missing: {', '.join(absent)}")
    return chosen, tuple(notes)
