"""Nano's and Super's vision encoder: Qwen3-VL's ViT, whose mergers feed the first language layers too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motedge.checkpoint.vision_config import VisionConfig
from motedge.export.modules.layers import Linear, Precision, rotate
from motedge.export.modules.vision_layers import LayerNorm, Projector, attend_images, gelu_tanh, split_images


class PatchLinear(Linear):
    """The patch embedding: a convolution whose kernel is its stride, hence a matrix."""

    layout = "patch_matrix"


class QwenAttention(nn.Module):
    """Attention among the patches of an image, with rotation by row and column."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.heads, self.precision = config.num_attention_heads, precision
        width, dtype = config.hidden_size, precision.dtype
        self.qkv = Linear(width, 3 * width, dtype, bias=True)
        self.proj = Linear(width, width, dtype, bias=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]; cos and sin [G, 4, R]."""
        q, k, v = (split_images(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        return self.proj(attend_images(q, k, v, self.precision))

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # The fused operator would want one table an image
        return rotate(x, cos.flatten(0, 1), sin.flatten(0, 1), Precision("primitive", self.precision.dtype))


class QwenMLP(nn.Module):
    """Feed-forward layer."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.linear_fc1 = Linear(config.hidden_size, config.intermediate_size, precision.dtype, bias=True)
        self.linear_fc2 = Linear(config.intermediate_size, config.hidden_size, precision.dtype, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]."""
        return self.linear_fc2(gelu_tanh(self.linear_fc1(x)))


class QwenBlock(nn.Module):
    """One layer."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.hidden_size, precision)
        self.attn = QwenAttention(config, precision)
        self.norm2 = LayerNorm(config.hidden_size, precision)
        self.mlp = QwenMLP(config, precision)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]; cos and sin [G, 4, R]."""
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class QwenFront(nn.Module):
    """Patches, positions and angles to the stream."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        volume = 3 * config.temporal_patch_size * config.patch_size**2
        self.patch_embed = nn.ModuleDict({"proj": PatchLinear(volume, config.hidden_size, precision.dtype, bias=True)})

    def forward(self, patches: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """patches fp32 [B, G, 4, 1536], positions fp32 [G, 4, E], cos and sin fp32 [G, 4, R] -> the stream
        [B, G, 4, E] and the angles in the module's type."""
        x = self.patch_embed["proj"](patches.to(self.dtype)) + positions.to(self.dtype)
        return x, cos.to(self.dtype), sin.to(self.dtype)


class QwenBack(nn.Module):
    """The merger of the last layer's output."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.merger = Projector(config, precision, norm_grouped=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> visual tokens fp32 [B, G, H]."""
        tokens: Tensor = self.merger(x).float()
        return tokens


class DeepstackMerger(Projector):
    """The merger of an earlier layer's output."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__(config, precision, norm_grouped=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> features fp32 [1, B, G, H]."""
        return super().forward(x).float().unsqueeze(0)


class QwenEncoder(nn.Module):
    """Patches of images of one size -> visual tokens, and features for the first language layers."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.deepstack_indexes = config.deepstack_indexes
        self.front = QwenFront(config, precision)
        self.blocks = nn.ModuleList(QwenBlock(config, precision) for _ in range(config.num_hidden_layers))
        self.deepstack_merger_list = nn.ModuleList(DeepstackMerger(config, precision) for _ in self.deepstack_indexes)
        self.back = QwenBack(config, precision)

    def forward(self, patches: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs as `QwenFront`'s -> visual tokens fp32 [B, G, H], features fp32 [deepstack layers, B, G, H]."""
        x, cos, sin = self.front(patches, positions, cos, sin)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x, cos, sin)
            if index in self.deepstack_indexes:
                merger = self.deepstack_merger_list[self.deepstack_indexes.index(index)]
                features.append(merger(x))
        return self.back(x), torch.cat(features, dim=0)
