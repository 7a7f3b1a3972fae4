"""Small LeRobot data sets: a video whose brightness is its frame's number, and tables that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, SIZE = 10, (48, 64)
CAMERA = "observation.images.wrist_left"


def brightness(number: int) -> int:
    """Grey value of a frame; codecs keep it within 2."""
    return 20 + 6 * number


def write_video(path: Path, numbers: range, shift: int = 0) -> None:
    """Frames of flat grey, one for each number; `shift` is added to their brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 2_000_000
        for number in numbers:
            picture = np.full((*SIZE, 3), brightness(number) + shift, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def rows(episode: int, length: int, **columns: Any) -> dict[str, Any]:
    """Columns of one episode; the first joint is the frame's number in hundredths."""
    state = [[index / 100, -0.5, 0, -2, 0, 2, 0.5, 0.25] for index in range(length)]
    made = {
        "timestamp": [index / FPS for index in range(length)],
        "episode_index": [episode] * length,
        "frame_index": list(range(length)),
        "task_index": [0] * length,
        "observation.state": state,
    }
    return {name: value for name, value in {**made, **columns}.items() if value is not None}


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)


def write_v3(root: Path, lengths: tuple[int, ...] = (12, 9), task: str = "open the drawer") -> Path:
    """Two episodes in one table and one video, as v3 has them."""
    episodes = [rows(number, length) for number, length in enumerate(lengths)]
    joined = {name: [value for episode in episodes for value in episode[name]] for name in episodes[0]}
    write_table(root / "data/chunk-000/file-000.parquet", joined)
    write_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", range(sum(lengths)))
    starts = np.cumsum([0, *lengths[:-1]]) / FPS
    write_table(
        root / "meta/episodes/chunk-000/file-000.parquet",
        {
            "episode_index": list(range(len(lengths))),
            f"videos/{CAMERA}/chunk_index": [0] * len(lengths),
            f"videos/{CAMERA}/file_index": [0] * len(lengths),
            f"videos/{CAMERA}/from_timestamp": [float(start) for start in starts],
            f"videos/{CAMERA}/to_timestamp": [float(s + n / FPS) for s, n in zip(starts, lengths, strict=True)],
        },
    )
    write_table(root / "meta/tasks.parquet", {"task_index": [0], "task": [task]})
    # Names cameras and episodes that are not there: the files decide
    info = {"codebase_version": "v3.0", "total_episodes": 99, "features": {"observation.images.exterior_1": {}}}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_v21(root: Path, lengths: tuple[int, ...] = (12, 9), task: str = "open the drawer") -> Path:
    """A table and a video an episode, as v2.1 has them."""
    for number, length in enumerate(lengths):
        write_table(root / f"data/chunk-000/episode_{number:06d}.parquet", rows(number, length))
        first = sum(lengths[:number])
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4", range(first, first + length))
    (root / "meta").mkdir()
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": task}) + "\n")
    return root
