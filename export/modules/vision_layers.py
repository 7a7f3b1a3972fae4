"""What both vision encoders are made of: LayerNorm, GELU, attention within an image, the projector of 2 x 2 patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.vision_config import VisionConfig
from motedge.export.modules.layers import Linear, Precision

# Of every norm in both encoders: their configurations in transformers 5.23
EPS = 1e-6
# Patches that become one visual token
BLOCK = 4


class LayerNorm(nn.Module):
    """LayerNorm over the last axis."""

    def __init__(self, width: int, precision: Precision) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dtype=precision.dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(width, dtype=precision.dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, EPS)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by tanh, of basic operators. In fp16 the square may be infinite: the tanh then is 1, as it should be."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)))


def gelu_erf(x: Tensor) -> Tensor:
    """The exact GELU, of basic operators."""
    return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))


def attend_images(q: Tensor, k: Tensor, v: Tensor, precision: Precision) -> Tensor:
    """Softmax attention among the patches of each image, scale D**-0.5: [B, heads, N, D] each -> [B, G, 4, E]."""
    if precision.fused:
        out = F.scaled_dot_product_attention(q, k, v)
    else:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out = torch.softmax(scores, dim=-1) @ v
    return out.transpose(1, 2).reshape(q.shape[0], -1, BLOCK, q.shape[1] * q.shape[3])


def split_images(x: Tensor, heads: int) -> Tensor:
    """[B, G, 4, heads * D] -> [B, heads, N, D], N = 4 G."""
    return x.reshape(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


class Projector(nn.Module):
    """2 x 2 patches -> one visual token of the language model's width."""

    def __init__(self, config: VisionConfig, precision: Precision, *, norm_grouped: bool) -> None:
        """`norm_grouped`: the norm runs over four patches at once (deepstack), not over each by itself."""
        super().__init__()
        self.norm_grouped = norm_grouped
        self.norm = LayerNorm(config.merged_size if norm_grouped else config.hidden_size, precision)
        self.linear_fc1 = Linear(config.merged_size, config.projector_hidden_size, precision.dtype, bias=True)
        self.linear_fc2 = Linear(config.projector_hidden_size, config.out_hidden_size, precision.dtype, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, H]."""
        x = self.norm(x.flatten(2)) if self.norm_grouped else self.norm(x).flatten(2)
        return self.linear_fc2(gelu_erf(self.linear_fc1(x)))
