"""Pictures to files: PNG, and what else Pillow writes by its extension."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motedge.errors import UsageError
from motedge.files import PathLike, atomic_path
from motedge.media.packages import require_pillow

# Extension -> Pillow's name of the format
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def write_image(target: PathLike, image: NDArray[np.uint8]) -> None:
    """Writes uint8 RGB [rows, columns, 3]; the file appears whole or not at all.

    Raises:
        UsageError: another type or shape, or an extension that is no picture's.
        HostError: the disk is full or not writable.
        MissingPackageError: Pillow is not installed.
    """
    kind = FORMATS.get(Path(target).suffix.lower())
    if kind is None:
        raise UsageError(f"{target} is not named like a picture", expected=", ".join(FORMATS))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}"
        raise UsageError("this is no picture", expected="uint8 [rows, columns, 3]", got=got)
    picture = require_pillow("to write pictures").fromarray(np.ascontiguousarray(image))
    with atomic_path(target) as partial:
        picture.save(partial, format=kind)
