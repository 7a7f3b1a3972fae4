"""The video VAE for training: the modules of motedge.export over a batch, with the variances that only training needs.

Parameters are named as in the hub's files, and laid out so but for axes of 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from motedge.checkpoint.vae_config import VaeConfig
from motedge.export.modules.layers import Precision
from motedge.export.modules.vae_causal import Conv3d, History
from motedge.export.modules.vae_decoder import VideoDecoder, unpatchify
from motedge.export.modules.vae_video_encoder import VideoEncoder, patchify


class Vae(nn.Module):
    """Encoder and decoder of whole clips of 4 k + 1 frames, five at least, in fp32."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        precision = Precision("primitive", torch.float32)
        self.encoder = VideoEncoder(config, precision)
        self.quant_conv = Conv3d((2 * config.z_dim, 2 * config.z_dim), (1, 1, 1), precision)
        self.post_quant_conv = Conv3d((config.z_dim, config.z_dim), (1, 1, 1), precision)
        self.decoder = VideoDecoder(config, precision)
        self.config = config
        self._start()

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, F, Y, X] in [-1, 1] -> mean and log variance, [B, C, T, Y / 16, X / 16] each, not normalised."""

        def one(clip: Tensor) -> Tensor:
            cells = patchify(clip, self.config.patch_size)
            return self.quant_conv(self.encoder(cells, History("whole")))[0]

        mean, log_variance = torch.vmap(one)(frames).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w], not normalised -> [B, 3, F, 16 h, 16 w], not clamped."""

        def one(latent: Tensor) -> Tensor:
            cells = self.decoder(self.post_quant_conv(latent.unsqueeze(0)), History("whole"))
            return unpatchify(cells, self.config.patch_size)

        return torch.vmap(one)(latents)

    def _start(self) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(True)
            with torch.no_grad():
                if name.endswith("gamma"):
                    parameter.fill_(1.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    fan_in = math.prod(parameter.shape[1:])
                    nn.init.normal_(parameter, std=fan_in**-0.5)
                    if name.endswith(("conv2.weight", "proj.weight")):
                        # Branches are small beside what they are added to
                        parameter.mul_(0.3)


def pixels(frames: Tensor) -> Tensor:
    """uint8 [..., F, Y, X, 3] -> fp32 [..., 3, F, Y, X] in [-1, 1], as the runtime makes it."""
    return frames.movedim(-1, -4).float() / 127.5 - 1.0
