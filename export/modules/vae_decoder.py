"""The VAE decoder: all latent frames at once, or one after the other with what came before.

Both forms are one set of modules and equal in exact arithmetic, since nothing looks ahead. The first latent frame
becomes one frame, every other four.
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


class Upsampler(nn.Module):
    """Doubles rows and columns, and time where asked: the first frame stays, each other becomes two."""

    def __init__(self, channels: int, precision: Precision, *, temporal: bool) -> None:
        super().__init__()
        # The reference holds a Sequential(upsample, conv): the convolution's key ends in resample.1
        self.resample = nn.ModuleList([nn.Identity(), Conv3d((channels, channels), (1, 3, 3), precision)])
        self.time_conv = Conv3d((channels, 2 * channels), (3, 1, 1), precision) if temporal else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, C, T, Y, X] -> [1, C, T', 2 Y, 2 X]."""
        if self.time_conv is not None and history.form == "whole":
            # The convolution never sees the first frame: to it the video's second is the first
            x = torch.cat((x[:, :, :1], _double(self.time_conv(history.before(x[:, :, 1:], 2)))), dim=2)
        elif self.time_conv is not None:
            x = _double(self.time_conv(history.before(x, 2)))
        # By 2 this is nearest-exact, the reference's mode, in a form that every engine library has
        return self.resample[1](F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))


def _double(x: Tensor) -> Tensor:
    """[1, 2 C, T, Y, X], the earlier frames' channels first -> [1, C, 2 T, Y, X]."""
    early, late = x.chunk(2, dim=1)
    return torch.stack((early, late), dim=3).flatten(2, 3)


class UpBlock(nn.Module):
    """Residual blocks, an optional upsampler, and the repeating shortcut around all of them."""

    def __init__(self, inner: int, outer: int, blocks: int, precision: Precision, *, up: bool, temporal: bool) -> None:
        super().__init__()
        widths = [inner] + [outer] * (blocks + 1)
        self.resnets = nn.ModuleList(
            ResidualBlock(a, b, precision) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.upsampler = Upsampler(outer, precision, temporal=temporal) if up else None
        self.up, self.temporal = up, temporal
        # Each output channel takes as many input channels as it has frames, or fewer
        self.sources = inner // outer
        if up and (inner % outer or self.sources > (2 if temporal else 4)):
            raise ExportError(
                "this VAE's repeating shortcut is none of those known here",
                expected=f"a block of width {inner} or half of it after one of width {inner}",
                got=outer,
                fix="take the vae/ that belongs to the checkpoint",
            )

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T', Y', X']."""
        given = x
        for block in self.resnets:
            x = block(x, history)
        if self.upsampler is None:
            return x
        return self.upsampler(x, history) + self._repeat(given, history)

    def _repeat(self, x: Tensor, history: History) -> Tensor:
        """Every input channel fills its share of an output channel's 2 x 2 (x 2) cells: time, row, column."""
        _, channels, frames, rows, columns = x.shape
        times = 2 if self.temporal else 1
        cells = times * 4
        repeats = cells // self.sources
        x = x.unsqueeze(2).expand(1, channels, repeats, frames, rows, columns)
        x = x.reshape(channels // self.sources, times, 2, 2, frames, rows, columns)
        x = x.permute(0, 4, 1, 5, 2, 6, 3).reshape(1, channels // self.sources, -1, 2 * rows, 2 * columns)
        return x if history.form == "next" else x[:, :, times - 1 :]


class VideoDecoder(nn.Module):
    """Latents, after post_quant_conv -> patchified pixels."""

    def __init__(self, config: VaeConfig, precision: Precision) -> None:
        super().__init__()
        widths, count = config.decoder_widths, len(config.dim_mult)
        doubles_time = tuple(reversed(config.temperal_downsample))
        self.conv_in = CausalConv((config.z_dim, widths[0]), precision)
        self.mid_block = MidBlock(widths[0], precision)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[i],
                widths[i + 1],
                config.num_res_blocks,
                precision,
                up=i < count - 1,
                temporal=i < count - 1 and doubles_time[i],
            )
            for i in range(count)
        )
        self.norm_out = ChannelNorm(widths[-1], precision, dims=3)
        self.conv_out = CausalConv((widths[-1], config.out_channels), precision)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, C, T, h, w] -> [1, 12, F, 8 h, 8 w]."""
        x = self.mid_block(self.conv_in(x, history), history)
        for block in self.up_blocks:
            x = block(x, history)
        return self.conv_out(F.silu(self.norm_out(x)), history)


class VaeDecoder(nn.Module):
    """Normalised latents -> frames."""

    latents_mean: nn.Parameter
    latents_std: nn.Parameter

    def __init__(self, config: VaeConfig, precision: Precision, form: str) -> None:
        """`form`: see `History`."""
        super().__init__()
        self.post_quant_conv = Conv3d((config.z_dim, config.z_dim), (1, 1, 1), precision)
        self.decoder = VideoDecoder(config, precision)
        if form == "first":
            for layer in self.decoder.modules():
                if isinstance(layer, Upsampler):
                    layer.time_conv = None
        self.config, self.precision, self.form = config, precision, form
        add_constants(self, {"latents_mean": tuple(config.latents_mean), "latents_std": tuple(config.latents_std)})

    def forward(self, latent: Tensor, **caches: Tensor) -> Tensor | tuple[Tensor, ...]:
        """latent fp32 [C, T, h, w] -> frames fp32 [3, F, Y, X] in [-1, 1]; streaming, also the caches of the next."""
        history = History(self.form, list(caches.values()))
        z = (latent * self.latents_std + self.latents_mean).unsqueeze(0).to(self.precision.dtype)
        cells = self.decoder(self.post_quant_conv(z), history)
        frames = unpatchify(cells.float(), self.config.patch_size).clamp(-1.0, 1.0)
        return frames if self.form == "whole" else (frames, *history.kept)


def unpatchify(cells: Tensor, size: int) -> Tensor:
    """[1, 3 size^2, F, Y / size, X / size] -> [3, F, Y, X]; channels: colour, column parity, row parity."""
    _, channels, count, rows, columns = cells.shape
    colours = channels // (size * size)
    pixels = cells.reshape(colours, size, size, count, rows, columns).permute(0, 3, 4, 2, 5, 1)
    return pixels.reshape(colours, count, rows * size, columns * size)
