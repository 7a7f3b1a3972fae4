"""The VAE encoder for one image: an exact 2-D form of the causal video encoder.

With a single frame every causal 3x3x3 convolution sees zeros at its two earlier taps, so it equals a 2-D convolution
with its last temporal tap; temporal downsampling is skipped; and the average shortcut of a temporally downsampling
block averages [zero frame, frame]. A third of the convolution weights remain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.vae_config import VaeConfig
from motedge.errors import ExportError
from motedge.export.modules.layers import Precision, attend

NORM_EPS = 1e-12  # of torch.nn.functional.normalize, which the reference uses


class Conv2d(nn.Module):
    """2-D convolution. `layout` says how its weight follows from the checkpoint's."""

    def __init__(
        self,
        channels: tuple[int, int],
        size: int,
        precision: Precision,
        *,
        layout: str = "last_tap",
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        shape = (channels[1], channels[0], size, size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=precision.dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels[1], dtype=precision.dtype), requires_grad=False)
        self.layout, self.stride, self.padding = layout, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, Y, X] -> [1, out, Y', X']."""
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class ChannelNorm(nn.Module):
    """x / |x| * sqrt(C) * gamma over the channel axis; the norm in fp32."""

    def __init__(self, channels: int, precision: Precision, *, dims: int = 2) -> None:
        """`dims`: axes after the channels, 2 for an image and 3 for a video."""
        super().__init__()
        shape = (channels, *(1,) * dims)
        self.gamma = nn.Parameter(torch.empty(shape, dtype=precision.dtype), requires_grad=False)
        self.scale = channels**0.5

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, (T,) Y, X] -> the same shape and dtype."""
        wide = x.float()
        length = torch.sqrt((wide * wide).sum(dim=1, keepdim=True)).clamp_min(NORM_EPS)
        return (wide / length).to(x.dtype) * self.scale * self.gamma


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; plus the input, projected where the widths differ."""

    def __init__(self, inner: int, outer: int, precision: Precision) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inner, precision)
        self.conv1 = Conv2d((inner, outer), 3, precision, padding=1)
        self.norm2 = ChannelNorm(outer, precision)
        self.conv2 = Conv2d((outer, outer), 3, precision, padding=1)
        self.conv_shortcut = Conv2d((inner, outer), 1, precision) if inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, Y, X] -> [1, out, Y, X]."""
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        x = self.conv1(F.silu(self.norm1(x)))
        return shortcut + self.conv2(F.silu(self.norm2(x)))


class Downsampler(nn.Module):
    """Halves rows and columns: pad right and bottom by one, 3x3 convolution of stride 2."""

    def __init__(self, channels: int, precision: Precision) -> None:
        super().__init__()
        # The reference holds a Sequential(pad, conv): the convolution's key ends in resample.1
        conv = Conv2d((channels, channels), 3, precision, layout="as_is", stride=2)
        self.resample = nn.ModuleList([nn.Identity(), conv])

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, Y, X] -> [1, C, Y / 2, X / 2]."""
        return self.resample[1](F.pad(x, (0, 1, 0, 1)))


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
        self.downsampler = Downsampler(outer, precision) if down else None
        self.down, self.temporal = down, temporal
        expected = inner * (2 if temporal else 1)
        if outer != expected:
            raise ExportError(
                "this VAE's average shortcut has no single-frame form here",
                expected=f"a block of width {expected} after one of width {inner}",
                got=outer,
                fix="take the vae/ that belongs to the checkpoint",
            )

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, Y, X] -> [1, out, Y', X']."""
        shortcut = F.avg_pool2d(x, 2) if self.down else x
        if self.temporal:
            # Pairs (earlier frame, this frame) become neighbouring channels; the earlier frame is zero
            shortcut = F.pad(shortcut.unsqueeze(2), (0, 0, 0, 0, 1, 0)).flatten(1, 2)
        for block in self.resnets:
            x = block(x)
        if self.downsampler is not None:
            x = self.downsampler(x)
        return x + shortcut


class AttentionBlock(nn.Module):
    """Single-head attention over the pixels of the frame."""

    def __init__(self, channels: int, precision: Precision) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, precision)
        self.to_qkv = Conv2d((channels, 3 * channels), 1, precision, layout="as_is")
        self.proj = Conv2d((channels, channels), 1, precision, layout="as_is")
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, Y, X] -> the same shape."""
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)  # [1, Y X, 3 C]
        q, k, v = (part.unsqueeze(1) for part in qkv.chunk(3, dim=-1))
        out = attend(q, k, v, self.precision).squeeze(1).transpose(1, 2)
        return x + self.proj(out.reshape(x.shape))


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int, precision: Precision) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([AttentionBlock(channels, precision)])
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, precision) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, Y, X] -> the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """Pixels, patchified -> mean and log variance, before quant_conv."""

    def __init__(self, config: VaeConfig, precision: Precision) -> None:
        super().__init__()
        widths = [config.base_dim * factor for factor in (1, *config.dim_mult)]
        count = len(config.dim_mult)
        self.conv_in = Conv2d((config.in_channels, widths[0]), 3, precision, padding=1)
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
        self.norm_out = ChannelNorm(widths[-1], precision)
        self.conv_out = Conv2d((widths[-1], 2 * config.z_dim), 3, precision, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[1, 12, Y / 2, X / 2] -> [1, 2 C, Y / 16, X / 16]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class VaeEncoder(nn.Module):
    """One padded canvas -> the normalised latent of its content (the distribution's mean)."""

    def __init__(self, config: VaeConfig, precision: Precision, grid: tuple[int, int]) -> None:
        """`grid`: latent rows and columns (h, w) to keep."""
        super().__init__()
        self.encoder = Encoder(config, precision)
        # Only the mean is used, so only its half of the output channels is kept
        self.quant_conv = Conv2d((2 * config.z_dim, config.z_dim), 1, precision, layout="mean_half")
        self.config, self.precision, self.grid = config, precision, grid
        # Values from the config, not from the weight files: see motedge.export.weights.constants_of
        self.constants = {
            "latents_mean": tuple(config.latents_mean),
            "latents_inverse_std": tuple(1.0 / std for std in config.latents_std),
        }
        for name, values in self.constants.items():
            empty = torch.empty(len(values), 1, 1, dtype=torch.float32)
            self.register_parameter(name, nn.Parameter(empty, requires_grad=False))

    def forward(self, image: Tensor) -> Tensor:
        """image fp32 [1, 3, Y, X] in [-1, 1] -> latent fp32 [C, 1, h, w]."""
        _, channels, rows, columns = image.shape
        size = self.config.patch_size
        cells = image.reshape(1, channels, rows // size, size, columns // size, size)
        # Channel order of a patch: colour, column parity, row parity
        cells = cells.permute(0, 1, 5, 3, 2, 4).reshape(1, -1, rows // size, columns // size)
        mean = self.quant_conv(self.encoder(cells.to(self.precision.dtype)))[0].float()
        mean = mean[:, : self.grid[0], : self.grid[1]]
        return ((mean - self.latents_mean) * self.latents_inverse_std).unsqueeze(1)
