"""Frames as a film: mp4, or webp and gif, which a page shows by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motedge.errors import UsageError, closest
from motedge.files import atomic_path
from motedge.media.video import write_video

FORMATS = (".mp4", ".webp", ".gif")


def write_film(path: Path, frames: Iterable[Image.Image], rate_hz: float) -> None:
    """Writes a film; its ending says the format. It appears whole or not at all.

    Args:
        path: the file.
        frames: RGB, all of one size, at least one.
        rate_hz: frames a second.

    Raises:
        UsageError: another format.
        MissingPackageError, HostError: as `motedge.media.video.write_video`.
    """
    check_format(path)
    if path.suffix == ".mp4":
        write_video(path, (np.asarray(frame)[None] for frame in frames), rate_hz)
        return
    first, *others = frames
    more: dict[str, Any] = {"quality": 50, "method": 6} if path.suffix == ".webp" else {"optimize": True}
    timing = {"duration": round(1e3 / rate_hz), "loop": 0}
    with atomic_path(path) as part:
        first.save(part, format=path.suffix[1:], save_all=True, append_images=others, **timing, **more)


def check_format(path: Path) -> None:
    """Whether a film can be written so.

    Raises:
        UsageError: it can't.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"no films of the format {path.suffix!r}", expected=", ".join(FORMATS), fix=closest(path.suffix, FORMATS)
        )
