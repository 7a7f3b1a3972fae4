"""The second part: both towers learn to denoise what is seen next and the way to drive, told by words.

Rectified flow: x = (1 - sigma) x0 + sigma noise, and the network gives noise - x0, at t = trunc(1000 sigma); sigmas are
shifted as at sampling. Latent frame 0 is given clean. A plan follows from the picture and the words alone, and the
recordings have the plans of all behaviours: half of the samples are told a behaviour by lot, whatever was driven, and
where it is another one only the actions count. In one of ten the words are left out, so that guidance has something to
steer away from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train_small.model.towers import Prompts, Towers
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.train.drives import Drives
from examples.train_small.train.loop import Batch
from examples.train_small.train.texts import EMBODIMENT, EMPTY, LATENT_FRAMES, VARIANTS, text_of
from motedge.runtime.policy.embodiments import find_embodiment

SHIFT = 5.0
_OTHER, _WITHOUT_WORDS = 0.5, 0.1
# What actions count beside pictures, and channels beside each other: x and the turn are small numbers that steer
_ACTION_WEIGHT = 10.0
_CHANNELS = (4.0, 1.0, 2.0, 1.0, 1.0, 8.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class TowerBatches:
    """Draws samples and scores velocities."""

    towers: Towers
    prompts: Prompts
    drives: Drives
    # Normalised, fp16 [2, n, C, T, h, w]: as they are, and in the mirror
    latents: Tensor
    size: int
    _channels: Tensor = field(init=False, repr=False)
    _noisy: Tensor = field(init=False, repr=False)
    _used: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Made now: while a CUDA graph is captured, nothing may be copied to the GPU
        device, width = self.latents.device, self.towers.config.action_dim
        object.__setattr__(self, "_channels", torch.tensor(_CHANNELS, device=device))
        # 1 where there is noise: on all frames but the first, and on the channels that the embodiment uses
        object.__setattr__(self, "_noisy", torch.tensor([0.0] + [1.0] * (LATENT_FRAMES - 1), device=device))
        used = [1.0] * len(_CHANNELS) + [0.0] * (width - len(_CHANNELS))
        object.__setattr__(self, "_used", torch.tensor(used, device=device))

    def draw(self, lot: np.random.Generator) -> Batch:
        """Clips by number, mirrors, and lots of what is told."""
        size, device = self.size, self.drives.device
        made = {
            "which": lot.integers(len(self.drives), size=size),
            "mirror": lot.random(size) < 0.5,
            "other": lot.random(size) < _OTHER,
            "behaviour": lot.integers(len(BEHAVIOURS), size=size),
            "variant": lot.integers(VARIANTS, size=size),
            "wordless": lot.random(size) < _WITHOUT_WORDS,
        }
        return {key: torch.from_numpy(value).to(device) for key, value in made.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of both velocities."""
        which, mirror, wordless = batch["which"], batch["mirror"], batch["wordless"]
        driven = self.drives.told(which, mirror)
        told = torch.where(batch["other"] & ~wordless, batch["behaviour"], driven)
        text = torch.where(wordless, EMPTY, text_of(told, batch["variant"]))
        vision = self.latents[mirror.long(), which].float()
        action = self._rows(self.drives.plan(which, mirror, told))
        u = torch.rand(len(which), device=vision.device)
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        vision_x, vision_v = _mixed(vision, sigma, self._noisy[:, None, None])
        action_x, action_v = _mixed(action, sigma, self._used)
        t = torch.trunc(1000 * sigma)
        domain = find_embodiment(EMBODIMENT).domain_id
        v, a = self.towers(self.prompts, text, vision_x, action_x, self._noisy, t, domain)
        counted = (told == driven).float()
        wrong = (v - vision_v)[:, :, 1:].square().mean((1, 2, 3, 4))
        vision_loss = (wrong * counted).sum() / counted.sum().clamp_min(1)
        raw = (a - action_v)[..., : len(_CHANNELS)].square()
        action_loss = (raw * self._channels).mean()
        return {"loss": vision_loss + _ACTION_WEIGHT * action_loss, "vision": vision_loss, "action": raw.mean()}

    def _rows(self, plan: Tensor) -> Tensor:
        return F.pad(plan, (0, self.towers.config.action_dim - plan.shape[-1]))


def _mixed(clean: Tensor, sigma: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """The state at sigma, and its velocity; both untouched where `noisy` is 0."""
    noise = torch.randn_like(clean)
    share = sigma.view(-1, *(1,) * (clean.dim() - 1)) * noisy
    return (1 - share) * clean + share * noise, (noise - clean) * noisy
