"""What the arguments of `motedge generate` name: prompts, sizes, actions and pictures in files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from motedge.media.video import Video
    from motedge.runtime.generate import Generator

_log = logging.getLogger(__name__)


def read_text(argument: str, option: str) -> str:
    """A prompt as it is, or from the file behind an @.

    Raises:
        UsageError: the file can't be read.
    """
    if not argument.startswith("@"):
        return argument
    try:
        return Path(argument[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: can't read {argument[1:]}", got=str(error), fix="check the path") from error


def parse_size(argument: Optional[str]) -> Optional[tuple[int, int]]:
    """WxH as (rows, columns).

    Raises:
        UsageError: it is no such thing.
    """
    if argument is None:
        return None
    columns, separator, rows = argument.lower().partition("x")
    if not separator or not columns.isdecimal() or not rows.isdecimal():
        raise UsageError("--size is no size", expected="COLUMNSxROWS, such as 832x480", got=argument)
    return int(rows), int(columns)


def parse_numbers(argument: str, option: str) -> list[float]:
    """Numbers between commas or spaces.

    Raises:
        UsageError: something else.
    """
    try:
        return [float(word) for word in argument.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(f"{option} is no list of numbers", expected="such as 0.1,0.2", got=argument) from error


def read_actions(path: Path) -> NDArray[np.float64]:
    """Actions [n, D]: .json (rows, or a document with "actions"), .npy, or .parquet with a column a channel.

    Raises:
        DataError: no such file, or no rows of numbers of one length.
        UsageError: an extension that is none of these.
    """
    readers = {".json": _from_json, ".npy": _from_npy, ".parquet": _from_parquet}
    if path.suffix.lower() not in readers:
        raise UsageError("--actions: unknown kind of file", expected=", ".join(readers), got=path.name)
    if not path.is_file():
        raise DataError(f"there are no actions {path}", fix="check the path")
    try:
        rows = np.asarray(readers[path.suffix.lower()](path), np.float64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path.name}: no actions", expected="rows of numbers", got=str(error)) from error
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"{path.name}: no actions", expected="[n, D]", got=list(rows.shape))
    return rows


def read_clip(path: Path, most: int, *, last: bool = False, whole: bool = False) -> Video:
    """At most that many frames of a video; `whole`: say it if there are more.

    Raises:
        DataError: no such file, or nothing in it that can be decoded.
    """
    from motedge.media.video import Video, read_video

    video = read_video(path, most + int(whole), last)
    if len(video.frames) > most:
        _log.warning("%s: the first %d frames are taken, there are more", path.name, most)
        video = Video(video.frames[:most], video.fps)
    return video


def frames_wanted(mode: str, generator: Generator, frames: Optional[int], kept: tuple[int, ...]) -> int:
    """How many frames of a video a mode reads."""
    if mode == "video2video":
        return 4 * max(kept) + 1
    return generator.shape.most_frames if frames is None else frames


def _from_json(path: Path) -> Any:
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["actions"] if isinstance(document, dict) else document


def _from_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _from_parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="parquet", purpose="to read parquet files") from error
    table = parquet.read_table(path)
    names = [name for name in table.column_names if name != "time_s"]
    return np.stack([table[name].to_numpy() for name in names], axis=1)
