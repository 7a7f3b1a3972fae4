"""The first part: the VAE learns to make pictures small and large again, from clips of two lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from examples.train_small.model.vae import Vae
from examples.train_small.train.drives import Drives
from examples.train_small.train.loop import Batch
from examples.train_small.train.texts import FRAMES

# The shortest clip with more than one latent frame
SHORT = 5
_KL = 1e-5


@dataclass(frozen=True)
class VaeBatches:
    """Draws clips and scores their reconstruction."""

    vae: Vae
    drives: Drives
    # Short clips, and long ones, of a step
    short: int
    long: int

    def draw(self, lot: np.random.Generator) -> Batch:
        """Clips by number, and whether they are seen in a mirror."""
        count, device = self.short + self.long, self.drives.device
        which = torch.from_numpy(lot.integers(len(self.drives), size=count))
        return {"which": which.to(device), "mirror": torch.from_numpy(lot.random(count) < 0.5).to(device)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L1 and squared error of pixels, and a little of the divergence from a normal distribution."""
        parts = (slice(0, self.short), SHORT), (slice(self.short, None), FRAMES)
        made = [self._part(batch["which"][part], batch["mirror"][part], frames) for part, frames in parts]
        l1, square, divergence = (torch.stack(values).mean() for values in zip(*made, strict=True))
        return {"loss": l1 + square + _KL * divergence, "l1": l1, "mse": square, "kl": divergence}

    def _part(self, which: Tensor, mirror: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        clip = self.drives.clip(which, mirror, frames)
        mean, log_variance = self.vae.encode(clip)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        wrong = self.vae.decode(latents) - clip
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return wrong.abs().mean(), wrong.square().mean(), divergence


@torch.no_grad()
def encode_all(vae: Vae, drives: Drives, batch: int = 256) -> Tensor:
    """Means of all clips, as they are and in the mirror: fp16 [2, n, C, T, h, w], not normalised."""
    made = []
    for mirrored in (False, True):
        for start in range(0, len(drives), batch):
            which = torch.arange(start, min(start + batch, len(drives)), device=drives.device)
            mirror = torch.full_like(which, mirrored, dtype=torch.bool)
            made.append(vae.encode(drives.clip(which, mirror))[0].half())
    latents = torch.cat(made)
    return latents.unflatten(0, (2, -1))


def latent_statistics(latents: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of [2, n, C, T, h, w], rounded as a config has them."""
    some = latents[:, :: max(1, latents.shape[1] // 4096)].float()
    axes = (0, 1, 3, 4, 5)
    mean, std = some.mean(axes), some.std(axes).clamp_min(1e-3)
    return tuple(round(float(x), 4) for x in mean), tuple(round(float(x), 4) for x in std)
