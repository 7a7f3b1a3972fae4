"""Pictures of roads without a simulator: of the kind that the small checkpoint knows, though none that it was shown."""

from __future__ import annotations

import numpy as np


def road(seed: int = 0, side: int = 96) -> np.ndarray:
    """A grey strip in green, somewhat askew, uint8 [side, side, 3]."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    middle = 0.5 + random.uniform(-0.1, 0.1) + random.uniform(-0.2, 0.2) * (0.75 - y)
    grey = np.abs(x - middle) < 0.14
    picture = np.where(grey[..., None], (104, 105, 104), (100, 202, 100)) + random.randint(-4, 5, (side, side, 1))
    made: np.ndarray = picture.clip(0, 255).astype(np.uint8)
    return made
