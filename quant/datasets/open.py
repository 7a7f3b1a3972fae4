"""Opening a data set of whichever kind."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from motedge.errors import DataError
from motedge.files import PathLike
from motedge.quant.datasets import images
from motedge.quant.datasets.dataset import Dataset
from motedge.quant.datasets.images import ImageFolder
from motedge.quant.datasets.lerobot import LeRobotDataset
from motedge.quant.datasets.requests import RecordedRequests, request_folders
from motedge.quant.datasets.ring import RecordedTicks
from motedge.runtime.recorder.segment import segments


def open_dataset(path: PathLike, *, instruction: Optional[str] = None) -> Dataset:
    """Finds out what kind of data set a folder is, and opens it.

    Args:
        path: the folder.
        instruction: the task in words, in place of the data set's own.

    Raises:
        DataError: no data set that is known here, or one that lacks something.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"there is no data set at {root}", expected="a folder", fix="check the path")
    if (root / images.FILE).is_file():
        return ImageFolder(root, instruction)
    if (root / "data").is_dir() or (root / "meta" / "info.json").is_file():
        return LeRobotDataset(root, instruction)
    if segments(root):
        return RecordedTicks(root, instruction)
    if request_folders(root):
        return RecordedRequests(root, instruction)
    raise DataError(
        f"{root} is no data set that is known here",
        expected=f"a LeRobot data set (data/ and videos/), images with {images.FILE}, recorded requests, or a ring",
        got=", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "an empty folder",
    )
