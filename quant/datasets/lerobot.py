"""LeRobot data sets, v3 and v2.1: parquet tables and mp4 videos. The files decide what is there, not meta/info.json.

v3:   data/chunk-*/file-*.parquet, several episodes a file
v2.1: data/chunk-*/episode_*.parquet
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError, ObservationError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.quant.datasets.droid_columns import STATE, EpisodeStates, read_states, state_columns
from motedge.quant.datasets.episode_videos import EGO, EpisodeVideos
from motedge.quant.datasets.parquet_tables import column_names, read_columns
from motedge.quant.datasets.task_texts import read_tasks, task_text
from motedge.quant.datasets.video import read_frame
from motedge.runtime.policy.observation import Observation

_INDEX = ("episode_index", "timestamp", "frame_index", "task_index")
_EPISODES_KEPT = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Episode:
    """Rows of one episode, in order of time."""

    number: int
    tables: tuple[Path, ...]
    # [N], from the episode's start
    times_s: NDArray[np.float64]
    # [N], or None where the tables have no task_index
    tasks: Optional[NDArray[np.int64]]


class LeRobotDataset:
    """One data set folder. What says which rows there are is read when opened, states and pictures when asked for."""

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """`instruction` takes the place of the data set's own.

        Raises:
            DataError: no table, no camera, no episode with its videos, or a table without its columns.
        """
        self.root, self.name, self._instruction = root, root.resolve().name, instruction
        self._tables = sorted((root / "data").rglob("*.parquet"))
        if not self._tables:
            raise DataError(f"{root} holds no episode", expected="data/chunk-*/*.parquet", fix="check the path")
        old = self._tables[0].name.startswith("episode_")
        self.kind = "lerobot v2.1" if old else "lerobot v3"
        self._episodes = _read_episodes(self.name, self._tables)
        if not self._episodes:
            raise DataError(f"{root} is empty", expected="at least one row", got="tables without rows")
        self._videos = EpisodeVideos(root, old=old, episodes=len(self._episodes))
        self._seen = self._episodes_with_videos()
        self._states = functools.lru_cache(maxsize=_EPISODES_KEPT)(self._read_states)

    @property
    def notes(self) -> tuple[str, ...]:
        """Missing cameras and videos, and repairs of the first episode's states, if it has any."""
        lost = len(self._episodes) - len(self._seen)
        gap = (f"{lost} of {len(self._episodes)} episodes lack a video and are left out",) if lost else ()
        repairs = () if self.of_vehicle else self._states(self._seen[0]).notes
        return (*self._videos.notes, *gap, *repairs)

    @property
    def of_vehicle(self) -> bool:
        """Whether it is a vehicle's: one camera that looks ahead, and no state that a policy sees."""
        return EGO in self._videos.cameras

    def moments(self) -> list[Moment]:
        """Every row of every episode whose videos are there."""
        return [Moment(group, index) for group in self._seen for index in range(len(self._episodes[group].times_s))]

    def observation(self, moment: Moment) -> Observation:
        """One row: pictures of all cameras, state if it is a robot's, and task."""
        episode = self._episodes.get(moment.group)
        if episode is None or not 0 <= moment.index < len(episode.times_s):
            raise DataError(f"{self.name} has no frame {moment.index} in episode {moment.group!r}")
        where = f"{self.name}, episode {moment.group}, frame {moment.index}"
        views = {view: self._picture(view, episode, moment.index) for view in self._videos.cameras}
        told, source = self._instruction or self._task(episode, moment.index, where), f"LeRobot dataset {where}"
        try:
            if self.of_vehicle:
                return Observation.of_camera(views[EGO], told, source=source)
            states = self._states(moment.group)
            return Observation(
                states.joints[moment.index],
                float(states.gripper[moment.index]),
                told,
                views=views,
                source="; ".join((source, *states.notes)),
            )
        except ObservationError as error:
            raise DataError(f"{where}: the policy can't take it", got=str(error)) from error

    def states(self, group: str) -> EpisodeStates:
        """States of all rows of an episode, in order of time.

        Raises:
            DataError: there is no such episode, or no state in it.
        """
        self._episode(group)
        if self.of_vehicle:
            raise DataError(
                f"{self.name} has no robot's state", expected="joints and gripper", got="a vehicle's camera"
            )
        return self._states(group)

    def columns(self, group: str, wanted: Collection[str]) -> dict[str, list[Any]]:
        """Column name -> values of all rows of an episode, in order of time; of those wanted, the ones there are.

        Raises:
            DataError: there is no such episode, or its tables have different columns.
        """
        episode = self._episode(group)
        columns: dict[str, list[Any]] = {}
        for path in episode.tables:
            table = read_columns(path, {*wanted, "frame_index", "timestamp"}, episode=episode.number)
            if columns and table.keys() != columns.keys():
                raise DataError(
                    f"tables of episode {group} have different columns",
                    expected=", ".join(columns),
                    got=f"{', '.join(table)} in {path.name}",
                )
            for name, values in table.items():
                columns.setdefault(name, []).extend(values)
        order = _order(columns)
        return {name: [values[at] for at in order] for name, values in columns.items()}

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        meta = [path for path in (self.root / "meta").rglob("*") if path.is_file()]
        return fingerprint_files(self.root, [*self._tables, *self._videos.files(), *meta], self._instruction or "")

    def _picture(self, view: str, episode: _Episode, index: int) -> NDArray[np.uint8]:
        stretch = self._videos.find(view, episode.number)
        time_s = stretch.start_s + float(episode.times_s[index])
        if time_s >= stretch.end_s:
            raise DataError(
                f"{stretch.video} has no picture of episode {episode.number}, frame {index}",
                expected=f"a time before {stretch.end_s:.2f} s, where the episode's pictures end",
                got=f"{time_s:.2f} s",
                fix="fetch the data set again: table and video are of different lengths",
            )
        return read_frame(stretch.video, time_s)

    def _episodes_with_videos(self) -> list[str]:
        """A part of a data set may have been fetched: episodes that lack a video are not there."""
        seen, problem = [], None
        for group, episode in self._episodes.items():
            try:
                for view in self._videos.cameras:
                    self._videos.find(view, episode.number)
            except DataError as error:
                problem = problem or error
            else:
                seen.append(group)
        if not seen and problem is not None:
            raise problem
        if problem is not None:
            lost = len(self._episodes) - len(seen)
            _log.warning("%s: %d episodes lack a video and are left out: %s", self.name, lost, problem.what)
        return seen

    def _read_states(self, group: str) -> EpisodeStates:
        """A whole episode at once: solving joints from poses goes row by row."""
        names = column_names(self._episode(group).tables[0])
        return read_states(self.columns(group, state_columns(names)), names=names, axes=self._state_axes)

    def _episode(self, group: str) -> _Episode:
        try:
            return self._episodes[group]
        except KeyError:
            raise DataError(
                f"{self.name} has no episode {group!r}", expected=f"one of {', '.join(list(self._seen)[:8])}"
            ) from None

    def _task(self, episode: _Episode, index: int, where: str) -> str:
        number = None if episode.tasks is None else int(episode.tasks[index])
        return task_text(self._tasks, number, where)

    @functools.cached_property
    def _tasks(self) -> dict[int, str]:
        return read_tasks(self.root)

    @functools.cached_property
    def _state_axes(self) -> Optional[tuple[str, ...]]:
        """What info.json calls the numbers of observation.state: the one thing that no other file says."""
        try:
            info = json.loads((self.root / "meta" / "info.json").read_text(encoding="utf-8"))
            names = info["features"][STATE]["names"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        flat = [axis for part in names.values() for axis in part] if isinstance(names, dict) else names
        return tuple(map(str, flat)) if isinstance(flat, list) else None


def _read_episodes(name: str, tables: list[Path]) -> dict[str, _Episode]:
    """Episodes by their number as text, in its order."""
    parts: dict[int, list[tuple[Path, dict[str, list[Any]]]]] = {}
    for path in tables:
        table = read_columns(path, _INDEX)
        missing = [column for column in ("timestamp", "episode_index") if column not in table]
        if missing:
            raise DataError(f"{name}: a table has no column {missing[0]}", got=", ".join(column_names(path)))
        empty = [column for column, values in table.items() if None in values]
        if empty:
            raise DataError(f"{path}: column {empty[0]} has rows without a value", expected="a number in each row")
        numbers = np.asarray(table["episode_index"], np.int64)
        for number in np.unique(numbers):
            rows = np.flatnonzero(numbers == number)
            columns = {column: [values[at] for at in rows] for column, values in table.items()}
            parts.setdefault(int(number), []).append((path, columns))
    return {str(number): _join(number, parts[number]) for number in sorted(parts)}


def _join(number: int, parts: list[tuple[Path, dict[str, list[Any]]]]) -> _Episode:
    shared = [name for name in _INDEX if all(name in columns for _, columns in parts)]
    joined = {name: [value for _, columns in parts for value in columns[name]] for name in shared}
    order = _order(joined)
    tasks = np.asarray(joined["task_index"], np.int64)[order] if "task_index" in joined else None
    times = np.asarray(joined["timestamp"], np.float64)[order]
    return _Episode(number, tuple(path for path, _ in parts), times, tasks)


def _order(columns: Mapping[str, list[Any]]) -> list[int]:
    """Rows by their frame number: a table may hold them in any order."""
    numbers = columns.get("frame_index", columns["timestamp"])
    return sorted(range(len(numbers)), key=numbers.__getitem__)
