"""The one image that the DROID policy sees: the wrist camera on top, the two shoulder cameras halved below it.

Layout and sizes: cosmos-framework at 5eee9ed (policy server) and RoboLab at 0aef241 (client).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from motedge.errors import ObservationError, closest
from motedge.runtime.policy.letterbox import letterbox
from motedge.runtime.policy.resize import Image, resize_bilinear

# Wrist camera; over the left shoulder; over the right shoulder
VIEW_NAMES = ("wrist", "left", "right")
# Rows and columns of one camera before composing
CAMERA_SIZE = (360, 640)
# Rows and columns of the composed image
COMPOSED_SIZE = (CAMERA_SIZE[0] * 3 // 2, CAMERA_SIZE[1])


def compose_views(views: Mapping[str, Image]) -> tuple[Image, tuple[str, ...]]:
    """Composes uint8 RGB images [rows, columns, 3] of any size; returns uint8 [540, 640, 3] and the missing views.

    A camera of another size is letterboxed to 640 x 360 first, as the client does. A missing one is black: the policy
    was not trained for that, so it is named in the result and never passes silently.

    Raises:
        ObservationError: no view at all, or an unknown name.
    """
    for name in views:
        if name not in VIEW_NAMES:
            raise ObservationError(f"unknown camera view {name!r}", fix=closest(name, VIEW_NAMES))
    missing = tuple(name for name in VIEW_NAMES if name not in views)
    if len(missing) == len(VIEW_NAMES):
        raise ObservationError("the observation has no image", expected=f"at least one of {', '.join(VIEW_NAMES)}")
    cameras = {name: letterbox(image, CAMERA_SIZE) for name, image in views.items()}
    composed = np.zeros((*COMPOSED_SIZE, 3), np.uint8)
    for name, (rows, columns) in view_regions().items():
        if name in cameras:
            size = rows.stop - rows.start, columns.stop - columns.start
            composed[rows, columns] = resize_bilinear(cameras[name], size)
    return composed, missing


def view_regions() -> dict[str, tuple[slice, slice]]:
    """Where each view lies in the composed image: rows, columns."""
    rows, columns = CAMERA_SIZE
    below = slice(rows, COMPOSED_SIZE[0])
    return {
        "wrist": (slice(0, rows), slice(0, columns)),
        "left": (below, slice(0, columns // 2)),
        "right": (below, slice(columns // 2, columns)),
    }
