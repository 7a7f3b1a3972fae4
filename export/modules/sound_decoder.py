"""The decoder of the audio tokenizer: sound latents to a waveform. Convolutions in time, no attention, no state.

Channels are [1, C, J]; J is the number of latents, and of samples further on. Weights are joined from direction and
length when they are read (motedge.checkpoint.weight_norm), so that the graph has plain convolutions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.sound_config import SoundConfig
from motedge.export.modules.layers import Precision

_TAPS = 7
_DILATIONS = (1, 3, 9)  # of the residual units, in order
_LEAST = 1e-9  # added to the snake's beta, as the reference does


class Snake(nn.Module):
    """x + sin(alpha x)^2 / beta for each channel; alpha and beta are stored as logarithms. fp32 throughout.

    The angle grows with x, and 16 bits would lose its place on the circle.
    """

    keep_fp32 = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, channels, 1, dtype=torch.float32), requires_grad=False)
        self.beta = nn.Parameter(torch.empty(1, channels, 1, dtype=torch.float32), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, J] -> the same shape and dtype."""
        wide = x.float()
        wave = torch.sin(torch.exp(self.alpha) * wide)
        return (wide + wave * wave / (torch.exp(self.beta) + _LEAST)).to(x.dtype)


class Conv1d(nn.Module):
    """Convolution that keeps the length."""

    def __init__(
        self, channels: tuple[int, int], taps: int, precision: Precision, *, dilation: int = 1, bias: bool = True
    ) -> None:
        """`channels`: in, out."""
        super().__init__()
        inner, outer = channels
        self.weight = nn.Parameter(torch.empty(outer, inner, taps, dtype=precision.dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outer, dtype=precision.dtype), requires_grad=False) if bias else None
        self.dilation, self.padding = dilation, (taps - 1) * dilation // 2

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, J] -> [1, out, J]."""
        return F.conv1d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class Upsample1d(nn.Module):
    """Transposed convolution: exactly `stride` samples for each that goes in."""

    def __init__(self, channels: tuple[int, int], stride: int, precision: Precision) -> None:
        """`channels`: in, out."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*channels, 2 * stride, dtype=precision.dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels[1], dtype=precision.dtype), requires_grad=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, J] -> [1, out, stride J]."""
        return F.conv_transpose1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=math.ceil(self.stride / 2),
            output_padding=self.stride % 2,
        )


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, pointwise convolution; plus the input."""

    def __init__(self, channels: int, dilation: int, precision: Precision) -> None:
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = Conv1d((channels, channels), _TAPS, precision, dilation=dilation)
        self.snake2 = Snake(channels)
        self.conv2 = Conv1d((channels, channels), 1, precision)

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, J] -> the same shape."""
        return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class UpBlock1d(nn.Module):
    """Snake, upsampling, three residual units."""

    def __init__(self, channels: tuple[int, int], stride: int, precision: Precision) -> None:
        """`channels`: in, out."""
        super().__init__()
        self.snake1 = Snake(channels[0])
        self.conv_t1 = Upsample1d(channels, stride, precision)
        self.res_unit1, self.res_unit2, self.res_unit3 = (
            ResidualUnit(channels[1], dilation, precision) for dilation in _DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, J] -> [1, out, stride J]."""
        x = self.conv_t1(self.snake1(x))
        return self.res_unit3(self.res_unit2(self.res_unit1(x)))


class WaveformDecoder(nn.Module):
    """Sound latents -> samples, not clamped yet."""

    def __init__(self, config: SoundConfig, precision: Precision) -> None:
        super().__init__()
        widths = config.decoder_widths
        self.conv1 = Conv1d((config.vocoder_input_dim, widths[0]), _TAPS, precision)
        self.block = nn.ModuleList(
            UpBlock1d((widths[i], widths[i + 1]), stride, precision)
            for i, stride in enumerate(reversed(config.dec_strides))
        )
        self.snake1 = Snake(config.dec_dim)
        self.conv2 = Conv1d((config.dec_dim, config.dec_out_channels), _TAPS, precision, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[1, Q, J] -> [1, channels, hop J]."""
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class SoundDecoder(nn.Module):
    """Sound latents -> waveform."""

    def __init__(self, config: SoundConfig, precision: Precision) -> None:
        super().__init__()
        self.decoder = WaveformDecoder(config, precision)
        self.dtype = precision.dtype

    def forward(self, latent: Tensor) -> Tensor:
        """latent fp32 [Q, J] -> fp32 [channels, hop J] in [-1, 1]."""
        waveform: Tensor = self.decoder(latent[None].to(self.dtype)).float().clamp(-1.0, 1.0)
        return waveform[0]
