"""A LeRobot v3 data set of one camera, episode by episode: meta/, data/ and videos/ as lerobot 0.4.4 reads them.

Statistics of the numbers and of the pictures are in meta/stats.json; those of single episodes are left out, which
lerobot does not need to read or train.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.train_small.data.lerobot_video import CameraFiles
from motedge.errors import DataError, MissingPackageError
from motedge.files import write_json

VERSION = "v3.0"
FILES_A_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
_MB = 1 << 20
_INDEX = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
# Every so many pictures one is looked at for statistics
_LOOKED_AT = 10
Columns = Mapping[str, NDArray[np.float32]]


class LeRobotWriter:
    """Writes below a folder of its own. `close` finishes the files; without it there is no data set."""

    def __init__(self, root: Path, camera: str, fps: int, tasks: Sequence[str], names: Mapping[str, Any]) -> None:
        """`names`: of the channels of each column of numbers that will come."""
        self._root, self._fps, self._tasks, self._names = root, fps, tuple(tasks), dict(names)
        self._pa, self._pq = _pyarrow()
        self._video = CameraFiles(root, camera, fps, VIDEO_MB * _MB, FILES_A_CHUNK)
        self._table: Any = None
        self._file, self._bytes = -1, 0
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._shapes: dict[str, list[int]] = {}
        self._seen: dict[str, list[NDArray[Any]]] = {}
        self._size = (0, 0)

    def add(self, frames: NDArray[np.uint8], task_index: NDArray[np.integer[Any]], columns: Columns) -> None:
        """Writes the next episode: uint8 [n, rows, columns, 3], a number of a task and a row of each column a frame.

        Raises:
            DataError: pictures of another size than before, or columns of another length, shape or name.
        """
        count, number = len(frames), len(self._episodes)
        self._check(frames, task_index, columns)
        index = {
            "timestamp": np.arange(count, dtype=np.float32) / np.float32(self._fps),
            "frame_index": np.arange(count, dtype=np.int64),
            "episode_index": np.full(count, number, np.int64),
            "index": np.arange(self._frames, self._frames + count, dtype=np.int64),
            "task_index": np.asarray(task_index, np.int64),
        }
        place = self._write_rows({**columns, **index})
        told = sorted({int(one) for one in task_index})
        episode = {
            "episode_index": number,
            "tasks": [self._tasks[one] for one in told],
            "length": count,
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + count,
            **self._video.add(frames),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        self._episodes.append(episode)
        self._frames += count
        for name, values in {**columns, **index}.items():
            self._seen.setdefault(name, []).append(np.asarray(values))
        looked = frames[::_LOOKED_AT].astype(np.float64).reshape(-1, 3) / 255
        self._seen.setdefault(self._video.key, []).append(looked.astype(np.float32))

    def close(self) -> None:
        """Finishes the files and writes meta/.

        Raises:
            DataError: no episode was added.
        """
        self.abandon()
        if not self._episodes:
            raise DataError("there is no episode to write", expected="one at least")
        meta = self._root / "meta"
        self._pq.write_table(self._task_table(), meta / "tasks.parquet")
        path = meta / "episodes" / "chunk-000" / "file-000.parquet"
        path.parent.mkdir(parents=True)
        self._pq.write_table(self._pa.Table.from_pylist(self._episodes), path)
        write_json(meta / "stats.json", {name: self._statistics(name) for name in self._seen})
        write_json(meta / "info.json", self._info())

    def abandon(self) -> None:
        """Closes what is open; harmless when repeated."""
        self._video.close()
        if self._table is not None:
            self._table.close()
            self._table = None

    def _check(self, frames: NDArray[np.uint8], task_index: NDArray[Any], columns: Columns) -> None:
        if not self._shapes:
            self._shapes = {name: list(values.shape[1:]) for name, values in columns.items()}
            self._size = (frames.shape[1], frames.shape[2])
            (self._root / "meta").mkdir(parents=True, exist_ok=True)
        shapes = {name: list(values.shape[1:]) for name, values in columns.items()}
        lengths = {len(frames), len(task_index), *(len(values) for values in columns.values())}
        if frames.shape[1:] != (*self._size, 3) or shapes != self._shapes or len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"episode {len(self._episodes)} does not go with the others",
                expected=f"pictures {[*self._size, 3]}, and for each a task and {self._shapes}",
                got=f"pictures {list(frames.shape)}, {len(task_index)} tasks and {shapes} in {sorted(lengths)} rows",
            )
        unknown = [int(one) for one in task_index if not 0 <= one < len(self._tasks)]
        if unknown:
            raise DataError("unknown task", expected=f"0 to {len(self._tasks) - 1}", got=unknown[0])

    def _write_rows(self, columns: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
        table = self._pa.table({name: self._column(values) for name, values in columns.items()})
        if self._table is None or self._bytes >= DATA_MB * _MB:
            if self._table is not None:
                self._table.close()
            self._file, self._bytes = self._file + 1, 0
            chunk, file = divmod(self._file, FILES_A_CHUNK)
            path = self._root / "data" / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = self._pq.ParquetWriter(path, table.schema)
        self._table.write_table(table)
        self._bytes += table.nbytes
        return divmod(self._file, FILES_A_CHUNK)

    def _column(self, values: NDArray[Any]) -> Any:
        """Lists of lists, but plain numbers where there is one a row: as LeRobot has them."""
        flat: Any = self._pa.array(values.reshape(-1))
        for size in reversed(values.shape[1:] if values.shape[1:] != (1,) else ()):
            flat = self._pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, size, dtype=np.int32), flat)
        return flat

    def _task_table(self) -> Any:
        """With pandas' note that the text is the index: LeRobot looks tasks up by it."""
        table = self._pa.table({"task_index": list(range(len(self._tasks))), "task": list(self._tasks)})
        kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
        note = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}
                for name, (kind, numpy_kind) in kinds.items()
            ],
            "creator": {"library": "pyarrow", "version": self._pa.__version__},
            "pandas_version": "2.2.3",
        }
        return table.replace_schema_metadata({"pandas": json.dumps(note)})

    def _statistics(self, name: str) -> dict[str, Any]:
        values = np.concatenate(self._seen[name]).astype(np.float64)
        if values.ndim == 1:
            values = values[:, None]
        made = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        made.update({key: np.quantile(values, part, axis=0) for key, part in _QUANTILES.items()})
        if name == self._video.key:
            made = {key: value.reshape(3, 1, 1) for key, value in made.items()}
        return {**{key: value.tolist() for key, value in made.items()}, "count": [len(values)]}

    def _info(self) -> dict[str, Any]:
        numbers = {
            name: {"dtype": "float32", "shape": shape, "names": self._names.get(name)}
            for name, shape in self._shapes.items()
        }
        index = {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in _INDEX.items()}
        return {
            "codebase_version": VERSION,
            "robot_type": "car",
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_A_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                self._video.key: self._video.info(*self._size),
                **numbers,
                **index,
                "task_index": {"dtype": "int64", "shape": [1], "names": None},
            },
        }


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="quant", purpose="to write LeRobot data sets") from error
    return pyarrow, parquet
