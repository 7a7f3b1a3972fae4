"""LeRobot data sets, v3 and v2.1: parquet tables and mp4 videos. The files decide what is there, not meta/info.json.

v3:   data/chunk-*/file-*.parquet, videos/<camera>/chunk-*/file-*.mp4, several episodes a file
v2.1: data/chunk-*/episode_*.parquet, videos/chunk-*/<camera>/episode_*.mp4
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from motedge.errors import DataError, MissingPackageError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.quant.datasets.droid_columns import EpisodeStates, read_states
from motedge.quant.datasets.video import read_frame
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.views import VIEW_NAMES

# Words in a camera's name -> its place in the policy's picture. The second exterior camera's left eye is the one over
# the right shoulder
_CAMERAS = {
    "wrist": ("wrist",),
    "left": ("exterior_image_1", "exterior_1"),
    "right": ("exterior_image_2", "exterior_2"),
}
_EPISODES_KEPT = 8


class LeRobotDataset:
    """One data set folder. Tables are read when opened, states and pictures when asked for."""

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """`instruction` takes the place of the data set's own.

        Raises:
            DataError: no table, no camera, or a table without its columns.
        """
        self.root, self.name, self._instruction = root, root.name, instruction
        self._tables = sorted((root / "data").rglob("*.parquet"))
        if not self._tables:
            raise DataError(f"{root} holds no episode", expected="data/chunk-*/*.parquet", fix="check the path")
        old = self._tables[0].name.startswith("episode_")
        self.kind = "lerobot v2.1" if old else "lerobot v3"
        self._rows = self._read_rows()
        self._places = {} if old else self._video_places()
        self._videos = {view: found for view in VIEW_NAMES if (found := self._find_videos(view))}
        if not self._videos:
            cameras = sorted({path.parent.name for path in root.rglob("*.mp4")})
            raise DataError(
                f"{root} has no camera that the policy knows",
                expected="a video folder with wrist, exterior_1 or exterior_2 in its name",
                got=", ".join(cameras) or "no mp4 file",
            )
        self._states = functools.lru_cache(maxsize=_EPISODES_KEPT)(self._read_states)

    @property
    def notes(self) -> tuple[str, ...]:
        """Missing cameras, and repairs of the first episode's states."""
        absent = [view for view in VIEW_NAMES if view not in self._videos]
        gap = (f"{len(absent)} of {len(VIEW_NAMES)} cameras are missing: {', '.join(absent)}",) if absent else ()
        return (*gap, *self._states(next(iter(self._rows))).notes)

    def moments(self) -> list[Moment]:
        """Every row of every episode."""
        return [
            Moment(episode, index) for episode, rows in self._rows.items() for index in range(len(rows["timestamp"]))
        ]

    def observation(self, moment: Moment) -> Observation:
        """One row: pictures of all cameras, state and task."""
        if moment.group not in self._rows or not 0 <= moment.index < len(self._rows[moment.group]["timestamp"]):
            raise DataError(f"{self.name} has no frame {moment.index} in episode {moment.group!r}")
        rows, states = self._rows[moment.group], self._states(moment.group)
        time_s = float(rows["timestamp"][moment.index])
        views = {}
        for view in self._videos:
            video, start_s, end_s = self._video(view, moment.group)
            if start_s + time_s >= end_s:
                raise DataError(
                    f"{video} has no picture of episode {moment.group}, frame {moment.index}",
                    expected=f"a time before {end_s:.2f} s, where the episode's pictures end",
                    got=f"{start_s + time_s:.2f} s",
                    fix="fetch the data set again: table and video are of different lengths",
                )
            views[view] = read_frame(video, start_s + time_s)
        return Observation(
            states.joints[moment.index],
            float(states.gripper[moment.index]),
            self._instruction or self._task(rows, moment.index),
            views=views,
            source="; ".join(
                (f"LeRobot dataset {self.name}, episode {moment.group}, frame {moment.index}", *states.notes)
            ),
        )

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        videos = [path for files in self._videos.values() for path in files]
        meta = [path for path in (self.root / "meta").rglob("*") if path.is_file()]
        return fingerprint_files(self.root, [*self._tables, *videos, *meta], self._instruction or "")

    def _read_rows(self) -> dict[str, dict[str, list[Any]]]:
        """Episode -> column -> values, in order of time."""
        episodes: dict[str, dict[str, list[Any]]] = {}
        for table in map(_read_table, self._tables):
            missing = [name for name in ("timestamp", "episode_index") if name not in table]
            if missing:
                raise DataError(
                    f"{self.root.name}: a table has no column {missing[0]}", got=", ".join(sorted(table)) or "no column"
                )
            for at, number in enumerate(table["episode_index"]):
                rows = episodes.setdefault(str(number), {name: [] for name in table})
                for name, values in table.items():
                    rows[name].append(values[at])
        if not episodes:
            raise DataError(f"{self.root} is empty", expected="at least one row", got="tables without rows")
        return {number: _in_order(rows) for number, rows in episodes.items()}

    def _read_states(self, episode: str) -> EpisodeStates:
        return read_states(self._rows[episode])

    def _find_videos(self, view: str) -> list[Path]:
        words = _CAMERAS[view]
        files = sorted((self.root / "videos").rglob("*.mp4"))
        return [path for path in files if any(word in part for word in words for part in path.parts[-3:-1])]

    def _video_places(self) -> dict[str, Mapping[str, Any]]:
        """Episode -> its row of meta/episodes, of a v3 data set."""
        files = sorted((self.root / "meta" / "episodes").rglob("*.parquet"))
        found: dict[str, Mapping[str, Any]] = {}
        for table in map(_read_table, files):
            for at, number in enumerate(table.get("episode_index", ())):
                found[str(number)] = {name: values[at] for name, values in table.items()}
        return found

    def _video(self, view: str, episode: str) -> tuple[Path, float, float]:
        """The file with an episode's pictures, and where in it the episode starts and ends, in s."""
        files = self._videos[view]
        if self.kind == "lerobot v2.1":
            named = [path for path in files if path.stem == f"episode_{int(episode):06d}"]
            if not named:
                raise DataError(f"episode {episode} has no video of the {view} camera", fix="fetch the data set again")
            return named[0], 0.0, math.inf
        place = self._places.get(episode, {})
        start = [(name, value) for name, value in place.items() if name.endswith("/from_timestamp")]
        for name, value in start:
            camera = name.split("/")[1]
            if any(word in camera for word in _CAMERAS[view]):
                chunk, file = (int(place[f"videos/{camera}/{part}_index"]) for part in ("chunk", "file"))
                path = self.root / "videos" / camera / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
                if not path.is_file():
                    raise DataError(f"video {path.relative_to(self.root)} is missing", fix="fetch the data set again")
                return path, float(value), float(place.get(f"videos/{camera}/to_timestamp", math.inf))
        if len(self._rows) > 1 or start:
            raise DataError(
                f"where episode {episode} lies in the {view} camera's video is not said",
                expected="videos/<camera>/from_timestamp in meta/episodes",
                got=", ".join(place) or "no row of this episode",
            )
        return files[0], 0.0, math.inf

    def _task(self, rows: Mapping[str, list[Any]], index: int) -> str:
        number = rows["task_index"][index] if "task_index" in rows else 0
        text = self._tasks.get(int(number), "")
        # DROID joins up to three annotations with bars; without any, only the bars are there
        if not text.strip(" |"):
            raise DataError("the data set has no task text", got=repr(text), fix="give --instruction TEXT")
        return text

    @functools.cached_property
    def _tasks(self) -> dict[int, str]:
        lines, table = self.root / "meta" / "tasks.jsonl", self.root / "meta" / "tasks.parquet"
        if lines.is_file():
            try:
                rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
            except ValueError as error:
                raise DataError(f"{lines} is not JSON, line by line", got=str(error)) from error
        elif table.is_file():
            columns = _read_table(table)
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        else:
            rows = []
        try:
            return {int(row["task_index"]): next((v for v in row.values() if isinstance(v, str)), "") for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the tasks of {self.name} have no task_index", got=repr(error)) from error


def _in_order(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows by their frame number: a table may hold them in any order."""
    numbers = rows.get("frame_index", rows["timestamp"])
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return {name: [values[at] for at in order] for name, values in rows.items()}


def _read_table(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="quant", purpose="to read LeRobot data sets") from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a table that can be read", got=str(error), fix="fetch it again") from error
    return columns
