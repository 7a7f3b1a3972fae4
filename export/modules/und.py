"""The reasoner tower as the generator needs it: a prompt in, K and V of every layer out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motedge.checkpoint.config import ModelConfig
from motedge.export.modules.layers import MLP, Linear, Precision, RMSNorm, attend, merge_heads, rotate, split_heads


class UndProjections(nn.Module):
    """Weights of the reasoner's attention, and what they make of a token. `last` keeps only what K and V need."""

    def __init__(self, config: ModelConfig, precision: Precision, *, last: bool) -> None:
        super().__init__()
        self.config, self.precision, self.last = config, precision, last
        width, head = config.hidden_size, config.head_dim
        query_width, kv_width = config.num_attention_heads * head, config.num_key_value_heads * head
        self.to_k = Linear(width, kv_width, precision.dtype)
        self.to_v = Linear(width, kv_width, precision.dtype)
        if not last:
            self.to_q = Linear(width, query_width, precision.dtype)
            self.to_out = Linear(query_width, width, precision.dtype)
        if config.qk_norm_for_text:
            self.norm_k = RMSNorm(head, config, precision)
            if not last:
                self.norm_q = RMSNorm(head, config, precision)
        if config.und_k_norm_for_gen:
            self.k_norm_und_for_gen = RMSNorm(head, config, precision)

    def keys(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """x [S, H] -> the reasoner's own key and the one that the generator sees, rotated, [1, K, S, D] each."""
        k = split_heads(self.to_k(x), self.config.num_key_value_heads)
        if self.config.qk_norm_for_text:
            k = self.norm_k(k)
        own = rotate(k, cos, sin, self.precision)
        if not self.config.und_k_norm_for_gen:
            return own, own
        # On Edge the generator sees a normalised key, the reasoner itself the raw one
        return own, rotate(self.k_norm_und_for_gen(k), cos, sin, self.precision)

    def values(self, x: Tensor) -> Tensor:
        """x [S, H] -> V [1, K, S, D]."""
        return split_heads(self.to_v(x), self.config.num_key_value_heads)

    def queries(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [S, H] -> rotated Q [1, nq, S, D]."""
        q = split_heads(self.to_q(x), self.config.num_attention_heads)
        if self.config.qk_norm_for_text:
            q = self.norm_q(q)
        return rotate(q, cos, sin, self.precision)


class UndAttention(UndProjections):
    """Causal self attention over a whole prompt."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor | None, Tensor]:
        """x [S, H] -> (attention output [S, H], None in the last layer; K for gen and V stacked [1, 2, K, S, D])."""
        own_k, k_for_gen = self.keys(x, cos, sin)
        v = self.values(x)
        kv = torch.stack((k_for_gen, v), dim=1)
        if self.last:
            return None, kv
        out = attend(self.queries(x, cos, sin), own_k, v, self.precision, causal=True)
        return self.to_out(merge_heads(out)), kv


class UndLayer(nn.Module):
    """One reasoner layer. The last one ends after K and V: the rest is dead code in generation."""

    def __init__(self, config: ModelConfig, precision: Precision, *, last: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config, precision)
        self.self_attn = UndAttention(config, precision, last=last)
        if not last:
            self.post_attention_layernorm = RMSNorm(config.hidden_size, config, precision)
            self.mlp = MLP(config, precision)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """x [S, H] -> kv [1, 2, K, S, D], and x [S, H] except in the last layer."""
        out, kv = self.self_attn(self.input_layernorm(x), cos, sin)
        if out is None:
            return (kv,)
        x = x + out
        return kv, x + self.mlp(self.post_attention_layernorm(x))


class UndFront(nn.Module):
    """Host inputs to the module's type."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype

    def forward(self, embeddings: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """fp32 [S, H], [S, R], [S, R] -> the same in the module's type."""
        return embeddings.to(self.dtype), cos.to(self.dtype), sin.to(self.dtype)


class UndPrefill(nn.Module):
    """Prompt embeddings -> K (for the generator) and V of every layer. Never depends on noise or time."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        count = config.num_hidden_layers
        self.front = UndFront(precision)
        self.layers = nn.ModuleList(UndLayer(config, precision, last=i == count - 1) for i in range(count))

    def forward(self, embeddings: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """embeddings fp32 [S, H]; cos, sin fp32 [S, R] -> und_kv [L, 2, K, S, D] in the module's dtype."""
        x, cos, sin = self.front(embeddings, cos, sin)
        pairs = []
        for layer in self.layers:
            kv, *rest = layer(x, cos, sin)
            pairs.append(kv)
            x = rest[0] if rest else x
        return torch.cat(pairs, dim=0)
