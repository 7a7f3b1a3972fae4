"""Recordings on the training's device, and batches of them by lot."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from examples.train_small.data.dataset import RoadData
from examples.train_small.model.vae import pixels
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.train.texts import FRAMES
from motedge.errors import DataError

# Seen in a mirror, left and right change places; the others stay
MIRRORED = tuple({"left": "right", "right": "left"}.get(name, name) for name in BEHAVIOURS)
# Channels of a row that change their sign in a mirror: x, and the two elements of R that couple x with z
_SIGNS = (-1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0)


class Drives:
    """The arrays of `RoadData` as tensors of a device."""

    def __init__(self, data: RoadData, device: torch.device, *, every: int = 1) -> None:
        """`every`: of the clips that begin at each frame, which are taken: 2 takes every other.

        Raises:
            DataError: no episode is as long as a clip.
        """
        starts = data.clips(FRAMES)[::every]
        if not len(starts):
            raise DataError(f"{data.name}: no episode is long enough", expected=f"{FRAMES} frames", got="fewer")
        self.frames = torch.from_numpy(data.frames).to(device)
        self.starts = torch.from_numpy(starts).to(device)
        self.plans = torch.from_numpy(data.plans_all[starts]).to(device)
        self.behaviour = torch.from_numpy(data.behaviour[starts].astype(np.int64)).to(device)
        self.device = device
        self._signs = torch.tensor(_SIGNS, device=device)
        self._mirrored = torch.tensor([BEHAVIOURS.index(name) for name in MIRRORED], device=device)

    def __len__(self) -> int:
        return len(self.starts)

    def clip(self, which: Tensor, mirror: Tensor, frames: int = FRAMES) -> Tensor:
        """Pixels fp32 [B, 3, frames, 96, 96] in [-1, 1]; mirror: bool [B]."""
        steps = torch.arange(frames, device=self.device)
        clip = pixels(self.frames[self.starts[which][:, None] + steps])
        return torch.where(mirror[:, None, None, None, None], clip.flip(-1), clip)

    def plan(self, which: Tensor, mirror: Tensor, behaviour: Tensor) -> Tensor:
        """The clean plans of behaviours, as they are called in the mirror, fp32 [B, 16, 9]."""
        real = torch.where(mirror, self._mirrored[behaviour], behaviour)
        plan = self.plans[which, real]
        return torch.where(mirror[:, None, None], plan * self._signs, plan)

    def told(self, which: Tensor, mirror: Tensor) -> Tensor:
        """The behaviour that was driven, int64 [B], as it is called in the mirror."""
        driven = self.behaviour[which]
        return torch.where(mirror, self._mirrored[driven], driven)
