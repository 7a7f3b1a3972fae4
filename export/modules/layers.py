"""The layers that both towers are made of, in the two dialects.

Parameter names equal the checkpoint's keys. Matrices are held transposed, [in, out], so that a graph's MatMul takes
them as they are and its initializers keep their names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.config import ModelConfig


@dataclass(frozen=True)
class Precision:
    """How a module computes: the operator set it is written for and its floating type."""

    # "fused": one Attention, RMSNormalization and RotaryEmbedding operator each (ONNX opset 23); "primitive": neither
    dialect: str
    # torch.float32, float16 or bfloat16
    dtype: torch.dtype

    @property
    def fused(self) -> bool:
        """Whether the fused operators are used."""
        return self.dialect == "fused"


class Linear(nn.Module):
    """y = x W + b with W [in, out]. No bias unless asked for."""

    # How the weight follows from the checkpoint's, see motedge.export.weights
    layout = "transposed"

    def __init__(
        self, in_features: int, out_features: int, dtype: torch.dtype, *, bias: bool = False, keep_fp32: bool = False
    ) -> None:
        """`keep_fp32`: fp32 in every variant, so that variants share its file."""
        super().__init__()
        self.keep_fp32 = keep_fp32
        self.weight = nn.Parameter(torch.empty(in_features, out_features, dtype=dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis; statistics in fp32.

    Nemotron order (Edge): the weight multiplies in fp32, one cast at the end. Qwen order (Nano, Super): cast first,
    then multiply by the weight in the model's type. They differ by one rounding.
    """

    def __init__(self, width: int, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.eps, self.nemotron, self.fused = config.rms_norm_eps, not config.gated, precision.fused
        self.keep_fp32 = self.nemotron
        dtype = torch.float32 if self.keep_fp32 else precision.dtype
        self.weight = nn.Parameter(torch.empty(width, dtype=dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width] in x's dtype."""
        if self.fused:
            # ONNX RMSNormalization computes in fp32 and casts before the scale: Qwen's order
            y = F.rms_norm(x.float() if self.nemotron else x, (x.shape[-1],), self.weight, self.eps)
            return y.to(x.dtype)
        wide = x.float()
        y = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype) if self.nemotron else y.to(x.dtype) * self.weight


class MLP(nn.Module):
    """Feed-forward layer: squared ReLU without a gate (Edge), or SwiGLU (Nano, Super)."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        width, inner, dtype = config.hidden_size, config.intermediate_size, precision.dtype
        self.gated = config.gated
        # fp16 can't hold the square of what bf16 can: it is scaled down before, and up again after down_proj
        self.scaled = not config.gated and dtype is torch.float16
        if self.gated:
            self.gate_proj = Linear(width, inner, dtype)
        self.up_proj = Linear(width, inner, dtype)
        self.down_proj = Linear(inner, width, dtype)
        if self.scaled:
            self.relu2_scale = nn.Parameter(torch.empty(1, dtype=dtype), requires_grad=False)
            self.relu2_inverse = nn.Parameter(torch.empty(1, dtype=dtype), requires_grad=False)
            self.set_relu2_scale(1.0)

    def set_relu2_scale(self, scale: float) -> None:
        """Sets the power of two that motedge.export.relu2 found; powers of two lose nothing."""
        self.constants = {"relu2_scale": (scale,), "relu2_inverse": (1.0 / scale,)}

    def forward(self, x: Tensor) -> Tensor:
        """[N, H] -> [N, H]."""
        if self.gated:
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        inner = torch.relu(self.up_proj(x))
        if not self.scaled:
            return self.down_proj(inner * inner)
        inner = inner * self.relu2_scale
        # Twice by the inverse: its square may lie beyond fp16 where the result does not
        return self.down_proj(inner * inner) * self.relu2_inverse * self.relu2_inverse


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[N, heads * D] -> [1, heads, N, D], the layout that ONNX Attention takes."""
    return x.reshape(1, -1, heads, x.shape[-1] // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[1, heads, N, D] -> [N, heads * D]."""
    return x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])


def rotate(x: Tensor, cos: Tensor, sin: Tensor, precision: Precision) -> Tensor:
    """Rotary embedding in half-split layout: x [1, heads, N, D], cos and sin [N, R] of x's dtype."""
    if precision.fused:
        return torch.onnx.ops.rotary_embedding(x, cos.unsqueeze(0), sin.unsqueeze(0))
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, precision: Precision, *, causal: bool = False) -> Tensor:
    """Softmax attention, grouped heads, scale D**-0.5: q [1, nq, N, D], k and v [1, K, M, D] -> [1, nq, N, D]."""
    group = q.shape[1] // k.shape[1]
    if precision.fused:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=group > 1)
    if group > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return torch.softmax(scores, dim=-1) @ v
