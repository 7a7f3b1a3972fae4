"""An observation of a vehicle as the map that a policy server takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motedge.client import protocol


def camera_observation(image: NDArray[np.uint8], prompt: str) -> dict[str, Any]:
    """The map; what is in it is checked by the server.

    Args:
        image: of the camera that looks ahead, uint8 RGB [rows, columns, 3].
        prompt: what to do, in words.
    """
    return {protocol.IMAGE: image, protocol.PROMPT: prompt}
