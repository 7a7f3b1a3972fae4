"""Edge's vision encoder: a SigLIP2-style ViT without rotation, and the projector to the language model.

Module names follow the checkpoint's keys, hence the nested containers.
"""

from __future__ import annotations

from torch import Tensor, nn

from motedge.checkpoint.vision_config import VisionConfig
from motedge.export.modules.layers import Linear, Precision
from motedge.export.modules.vision_layers import LayerNorm, Projector, attend_images, gelu_tanh, split_images


class SiglipAttention(nn.Module):
    """Attention among the patches of an image."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.heads, self.precision = config.num_attention_heads, precision
        width, dtype = config.hidden_size, precision.dtype
        self.q_proj = Linear(width, width, dtype, bias=True)
        self.k_proj = Linear(width, width, dtype, bias=True)
        self.v_proj = Linear(width, width, dtype, bias=True)
        self.out_proj = Linear(width, width, dtype, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]."""
        q, k, v = (split_images(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend_images(q, k, v, self.precision))


class SiglipMLP(nn.Module):
    """Feed-forward layer."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, precision.dtype, bias=True)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, precision.dtype, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]."""
        return self.fc2(gelu_tanh(self.fc1(x)))


class SiglipLayer(nn.Module):
    """One layer."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, precision)
        self.self_attn = SiglipAttention(config, precision)
        self.layer_norm2 = LayerNorm(config.hidden_size, precision)
        self.mlp = SiglipMLP(config, precision)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> [B, G, 4, E]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SiglipFront(nn.Module):
    """Patches and positions to the stream."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        embed = Linear(3 * config.patch_size**2, config.hidden_size, precision.dtype, bias=True)
        embeddings = nn.ModuleDict({"patch_embedding": embed})
        self.model = nn.ModuleDict({"visual": nn.ModuleDict({"embeddings": embeddings})})
        self._embed = (embed,)  # in a tuple: the same module is not registered twice

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """patches fp32 [B, G, 4, 768], positions fp32 [G, 4, E] -> [B, G, 4, E]."""
        return self._embed[0](patches.to(self.dtype)) + positions.to(self.dtype)


class SiglipBack(nn.Module):
    """Final norm and projector."""

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        norm, projector = LayerNorm(config.hidden_size, precision), Projector(config, precision, norm_grouped=False)
        self.model = nn.ModuleDict({"visual": nn.ModuleDict({"post_layernorm": norm}), "projector": projector})
        self._parts = (norm, projector)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 4, E] -> visual tokens fp32 [B, G, H]."""
        norm, projector = self._parts
        return projector(norm(x)).float()


class SiglipEncoder(nn.Module):
    """Patches of images of one size -> visual tokens."""

    # Path of the layers in the checkpoint
    prefix = "model.visual.encoder.layers"

    def __init__(self, config: VisionConfig, precision: Precision) -> None:
        super().__init__()
        self.front = SiglipFront(config, precision)
        layers = nn.ModuleList(SiglipLayer(config, precision) for _ in range(config.num_hidden_layers))
        encoder = nn.ModuleDict({"layers": layers})
        self.model = nn.ModuleDict({"visual": nn.ModuleDict({"encoder": encoder})})
        self.back = SiglipBack(config, precision)
        self._layers = (layers,)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, in order."""
        return self._layers[0]

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """patches fp32 [B, G, 4, 768], positions fp32 [G, 4, E] -> visual tokens fp32 [B, G, H]."""
        x = self.front(patches, positions)
        for layer in self.layers:
            x = layer(x)
        tokens: Tensor = self.back(x)
        return tokens
