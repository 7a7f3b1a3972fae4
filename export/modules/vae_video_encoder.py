"""The VAE encoder for videos: all frames at once, or the first frame and then four at a time with what came before.

Both forms are one set of modules and equal in exact arithmetic, since nothing looks ahead. The first frame of a video
becomes a latent frame of its own, and every four after it another.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.vae_config import VaeConfig
from motedge.errors import ExportError
from motedge.export.modules.layers import Precision
from motedge.export.modules.vae_causal import CausalConv, Conv3d, History, MidBlock, ResidualBlock, add_constants
from motedge.export.modules.vae_encoder import ChannelNorm


class Downsampler(nn.Module):
    """Halves rows and columns, and time where asked: the first frame stays, then one out of each two."""

    def __init__(self, channels: int, precision: Precision, *, temporal: bool) -> None:
        super().__init__()
        # The reference holds a Sequential(pad, conv): the convolution's key ends in resample.1
        conv = Conv3d((channels, channels), (1, 3, 3), precision, stride=(1, 2, 2))
        self.resample = nn.ModuleList([nn.Identity(), conv])
        self.temporal = temporal
        self.time_conv = Conv3d((channels, channels), (3, 1, 1), precision, stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, C, T, Y, X] -> [1, C, T', Y / 2, X / 2]."""
        x = self.resample[1](F.pad(x, (0, 1, 0, 1)))
        if not self.temporal:
            return x
        if self.time_conv is None:  # the first frame alone
            history.keep(x, 1)
            return x
        if history.form == "next":
            return self.time_conv(history.before(x, 1))
        return torch.cat((x[:, :, :1], self.time_conv(x)), dim=2)


class DownBlock(nn.Module):
    """Residual blocks, an optional downsampler, and the average shortcut around all of them."""

    def __init__(
        self, inner: int, outer: int, blocks: int, precision: Precision, *, down: bool, temporal: bool
    ) -> None:
        super().__init__()
        widths = [inner] + [outer] * blocks
        self.resnets = nn.ModuleList(
            ResidualBlock(a, b, precision) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.downsampler = Downsampler(outer, precision, temporal=temporal) if down else None
        self.down, self.temporal = down, temporal
        expected = inner * (2 if temporal else 1)
        if outer != expected:
            raise ExportError(
                "this VAE's average shortcut is none of those known here",
                expected=f"a block of width {expected} after one of width {inner}",
                got=outer,
                fix="take the vae/ that belongs to the checkpoint",
            )

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T', Y', X']."""
        shortcut = self._average(x, history)
        for block in self.resnets:
            x = block(x, history)
        if self.downsampler is not None:
            x = self.downsampler(x, history)
        return x + shortcut

    def _average(self, x: Tensor, history: History) -> Tensor:
        if self.down:
            x = F.avg_pool3d(x, (1, 2, 2))
        if not self.temporal:
            return x
        if history.form != "next":
            # The first frame's partner is zero
            x = F.pad(x, (0, 0, 0, 0, 1, 0))
        # Pairs (earlier frame, later frame) become neighbouring channels
        _, channels, _, rows, columns = x.shape
        return torch.stack((x[:, :, 0::2], x[:, :, 1::2]), dim=2).reshape(1, 2 * channels, -1, rows, columns)


class VideoEncoder(nn.Module):
    """Pixels, patchified -> mean and log variance, before quant_conv."""

    def __init__(self, config: VaeConfig, precision: Precision) -> None:
        super().__init__()
        widths, count = config.encoder_widths, len(config.dim_mult)
        self.conv_in = CausalConv((config.in_channels, widths[0]), precision)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[i],
                widths[i + 1],
                config.num_res_blocks,
                precision,
                down=i < count - 1,
                temporal=i < count - 1 and config.temperal_downsample[i],
            )
            for i in range(count)
        )
        self.mid_block = MidBlock(widths[-1], precision)
        self.norm_out = ChannelNorm(widths[-1], precision, dims=3)
        self.conv_out = CausalConv((widths[-1], 2 * config.z_dim), precision)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, 12, F, Y / 2, X / 2] -> [1, 2 C, T, Y / 16, X / 16]."""
        x = self.conv_in(x, history)
        for block in self.down_blocks:
            x = block(x, history)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x, history))), history)


class VaeVideoEncoder(nn.Module):
    """Padded frames -> the normalised latent of their content (the distribution's mean)."""

    latents_mean: nn.Parameter
    latents_inverse_std: nn.Parameter

    def __init__(self, config: VaeConfig, precision: Precision, grid: tuple[int, int], form: str) -> None:
        """`grid`: latent rows and columns (h, w) to keep. `form`: see `History`."""
        super().__init__()
        self.encoder = VideoEncoder(config, precision)
        # Only the mean is used, so only its half of the output channels is kept
        self.quant_conv = Conv3d((2 * config.z_dim, config.z_dim), (1, 1, 1), precision, layout="mean_half")
        if form == "first":
            for layer in self.encoder.modules():
                if isinstance(layer, Downsampler):
                    layer.time_conv = None
        self.config, self.precision, self.grid, self.form = config, precision, grid, form
        inverse = tuple(1.0 / std for std in config.latents_std)
        add_constants(self, {"latents_mean": tuple(config.latents_mean), "latents_inverse_std": inverse})

    def forward(self, frames: Tensor, **caches: Tensor) -> Tensor | tuple[Tensor, ...]:
        """frames fp32 [3, F, Y, X] in [-1, 1] -> latent fp32 [C, T, h, w]; streaming, also the caches of the next."""
        history = History(self.form, list(caches.values()))
        mean = self.quant_conv(self.encoder(patchify(frames, self.config.patch_size).to(self.precision.dtype), history))
        mean = mean[0, :, :, : self.grid[0], : self.grid[1]].float()
        latent = (mean - self.latents_mean) * self.latents_inverse_std
        return latent if self.form == "whole" else (latent, *history.kept)


def patchify(frames: Tensor, size: int) -> Tensor:
    """[3, F, Y, X] -> [1, 3 size^2, F, Y / size, X / size]; channels: colour, column parity, row parity."""
    colours, count, rows, columns = frames.shape
    cells = frames.reshape(colours, count, rows // size, size, columns // size, size)
    cells = cells.permute(0, 5, 3, 1, 2, 4)
    return cells.reshape(1, colours * size * size, count, rows // size, columns // size)
