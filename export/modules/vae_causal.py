"""What the video VAE's encoder and decoder are made of: convolutions that see earlier frames, and blocks of them.

Videos are [1, C, T, Y, X]. No layer looks ahead in time; how many earlier frames it sees, and where they come from, is
the matter of `History` alone, so that one set of modules makes the whole-sequence form and both streaming graphs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.export.modules.layers import Precision, attend
from motedge.export.modules.vae_encoder import ChannelNorm


class History:
    """Where the frames before a chunk come from, layer by layer, in the order in which the layers run.

    A video's first frame is alone in that resampling in time leaves it out: encoder and decoder pass it through.
    """

    def __init__(self, form: str, caches: Sequence[Tensor] = ()) -> None:
        """For one forward.

        Args:
            form: "whole": all frames of a video, two latent ones at least; "first": its first frame, whose past is
                zero; "next": a chunk that continues a video.
            caches: the earlier frames of each layer, in order, for "next".
        """
        self.form, self._caches = form, list(caches)
        # What the next chunk will need, in order
        self.kept: list[Tensor] = []

    def before(self, x: Tensor, count: int) -> Tensor:
        """[1, C, T, Y, X] -> the same with the `count` frames before it, [1, C, count + T, Y, X]."""
        zeros = (0, 0, 0, 0, count, 0)
        joined = torch.cat((self._caches.pop(0), x), dim=2) if self.form == "next" else F.pad(x, zeros)
        self.keep(joined, count)
        return joined

    def keep(self, x: Tensor, count: int) -> None:
        """Keeps the last `count` frames for the next chunk."""
        if self.form != "whole":
            self.kept.append(x[:, :, -count:])


class _Convolution(nn.Module):
    """A 3-D convolution. `layout` says how its weight follows from the checkpoint's."""

    def __init__(
        self,
        channels: tuple[int, int],
        size: tuple[int, int, int],
        precision: Precision,
        *,
        layout: str = "as_is",
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        """`size`: taps in time, rows and columns. Rows and columns are padded unless they are strided."""
        super().__init__()
        shape = (channels[1], channels[0], *size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=precision.dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels[1], dtype=precision.dtype), requires_grad=False)
        self.layout, self.stride = layout, stride
        self.padding = (0, 0, 0) if stride[1] > 1 else (0, size[1] // 2, size[2] // 2)

    def convolve(self, x: Tensor) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T', Y', X'], without padding in time."""
        return F.conv3d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class Conv3d(_Convolution):
    """Convolution over the frames that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T', Y', X']."""
        return self.convolve(x)


class CausalConv(_Convolution):
    """3 x 3 x 3 convolution over a frame and the two before it."""

    def __init__(self, channels: tuple[int, int], precision: Precision) -> None:
        super().__init__(channels, (3, 3, 3), precision)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T, Y, X]."""
        return self.convolve(history.before(x, 2))


class ResidualBlock(nn.Module):
    """Norm, SiLU, causal convolution, twice; plus the input, projected where the widths differ."""

    def __init__(self, inner: int, outer: int, precision: Precision) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inner, precision, dims=3)
        self.conv1 = CausalConv((inner, outer), precision)
        self.norm2 = ChannelNorm(outer, precision, dims=3)
        self.conv2 = CausalConv((outer, outer), precision)
        self.conv_shortcut = Conv3d((inner, outer), (1, 1, 1), precision) if inner != outer else None

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, in, T, Y, X] -> [1, out, T, Y, X]."""
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        x = self.conv1(F.silu(self.norm1(x)), history)
        return shortcut + self.conv2(F.silu(self.norm2(x)), history)


class AttentionBlock(nn.Module):
    """Single-head attention over the pixels of each frame by itself."""

    def __init__(self, channels: int, precision: Precision) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, precision, dims=3)
        self.to_qkv = Conv3d((channels, 3 * channels), (1, 1, 1), precision)
        self.proj = Conv3d((channels, channels), (1, 1, 1), precision)
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, T, Y, X] -> the same shape."""
        qkv = self.to_qkv(self.norm(x))[0].flatten(2).permute(1, 2, 0)  # [T, Y X, 3 C]
        q, k, v = (part.unsqueeze(1) for part in qkv.chunk(3, dim=-1))
        out = attend(q, k, v, self.precision).squeeze(1).permute(2, 0, 1)  # [C, T, Y X]
        return x + self.proj(out.reshape(x.shape))


class MidBlock(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int, precision: Precision) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([AttentionBlock(channels, precision)])
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, precision) for _ in range(2))

    def forward(self, x: Tensor, history: History) -> Tensor:
        """[1, C, T, Y, X] -> the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x, history)), history)


def add_constants(module: nn.Module, values: dict[str, tuple[float, ...]]) -> None:
    """Gives a module one fp32 value a channel under each name, [C, 1, 1, 1]: from the config, not from weight files.

    See motedge.export.weights.constants_of.
    """
    module.__dict__["constants"] = values
    for name, value in values.items():
        empty = torch.empty(len(value), 1, 1, 1, dtype=torch.float32)
        module.register_parameter(name, nn.Parameter(empty, requires_grad=False))
