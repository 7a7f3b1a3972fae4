"""The reasoner tower as it writes text: new tokens beside what a fixed buffer holds of the earlier ones.

One graph serves prefill (S tokens, buffer empty or not) and decode (S = 1): the buffer keeps its size, a mask hides
what lies beyond its length, so that nothing is compiled or captured anew as the text grows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motedge.checkpoint.config import ModelConfig
from motedge.export.modules.layers import MLP, Linear, Precision, RMSNorm, merge_heads
from motedge.export.modules.und import UndProjections


class ReasonerAttention(UndProjections):
    """Attention of new tokens over the buffer and over themselves."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__(config, precision, last=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """Attends; the new rows are returned, and written into the buffer by the host.

        Args:
            x: new tokens [S, H].
            cos: [S, R].
            sin: [S, R].
            mask: what is added to the scores [S, P + S].
            past: K and V of earlier tokens [1, 2, K, P, D], finite everywhere.

        Returns:
            Attention output [S, H]; K and V of the new tokens [1, 2, K, S, D]; and, where it differs from K, the key
            that the generator sees [1, K, S, D].
        """
        k, k_for_gen = self.keys(x, cos, sin)
        new = torch.stack((k, self.values(x)), dim=1)
        whole = torch.cat((past, new), dim=3)
        out = attend_masked(self.queries(x, cos, sin), whole[:, 0], whole[:, 1], mask, self.precision)
        extra = (k_for_gen,) if self.config.und_k_norm_for_gen else ()
        return self.to_out(merge_heads(out)), new, *extra


class ReasonerLayer(nn.Module):
    """One whole reasoner layer."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config, precision)
        self.self_attn = ReasonerAttention(config, precision)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config, precision)
        self.mlp = MLP(config, precision)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """As the attention; the first of the results is the layer's x [S, H]."""
        out, *rows = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), *rows


class ReasonerFront(nn.Module):
    """Host inputs to the module's type, and the mask."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype

    def forward(
        self,
        embeddings: Tensor,
        cos: Tensor,
        sin: Tensor,
        past_kv: Tensor,
        past_length: Tensor,
        deepstack: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """embeddings, cos, sin, mask [S, P + S], and the visual features of each of the first layers [S, H].

        Args:
            embeddings: fp32 [S, H].
            cos: fp32 [S, R].
            sin: fp32 [S, R].
            past_kv: the buffer [L, 2, K, P, D], of which only the size counts here.
            past_length: rows of it that hold tokens, a whole number, fp32 [1].
            deepstack: fp32 [layers, S, H], or None for a family without.
        """
        count, slots, device = embeddings.shape[0], past_kv.shape[3], embeddings.device
        # Not minus infinity, which gives NaN where an engine works through a stretch that is hidden as a whole
        hidden = torch.finfo(self.dtype).min / 2
        slot = torch.arange(slots, dtype=torch.float32, device=device)
        row = torch.arange(count, dtype=torch.float32, device=device)
        past = torch.zeros(slots, dtype=self.dtype, device=device).masked_fill(slot + 0.5 > past_length, hidden)
        later = row.unsqueeze(0) > row.unsqueeze(1)
        new = torch.zeros(count, count, dtype=self.dtype, device=device).masked_fill(later, hidden)
        mask = torch.cat((past.expand(count, slots), new), dim=1)
        features = () if deepstack is None else deepstack.to(self.dtype).unbind(0)
        return embeddings.to(self.dtype), cos.to(self.dtype), sin.to(self.dtype), mask, *features


class ReasonerBack(nn.Module):
    """Final norm and vocabulary projection of the last token."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config, precision)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, precision.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x [S, H] -> logits of the token after the last, fp32 [V]."""
        return self.lm_head(self.norm(x[-1:])).float().reshape(-1)


class Reasoner(nn.Module):
    """New tokens and the buffer of the earlier ones -> K and V of the new tokens, and the next token's logits."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.front = ReasonerFront(precision)
        self.layers = nn.ModuleList(ReasonerLayer(config, precision) for _ in range(config.num_hidden_layers))
        self.back = ReasonerBack(config, precision)

    def forward(
        self,
        embeddings: Tensor,
        cos: Tensor,
        sin: Tensor,
        past_kv: Tensor,
        past_length: Tensor,
        deepstack: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Inputs as `ReasonerFront`'s.

        Returns:
            logits fp32 [V]; kv [L, 2, K, S, D] in the module's dtype; Edge also k_for_gen [L, K, S, D].
        """
        x, cos, sin, mask, *features = self.front(embeddings, cos, sin, past_kv, past_length, deepstack)
        rows = []
        for index, layer in enumerate(self.layers):
            x, *made = layer(x, cos, sin, mask, past_kv[index : index + 1])
            rows.append(made)
            if index < len(features):
                x = x + features[index]
        return self.back(x), *(torch.cat(parts, dim=0) for parts in zip(*rows, strict=True))


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, precision: Precision) -> Tensor:
    """Softmax attention with what is added to the scores, scale D**-0.5.

    Args:
        q: [1, nq, N, D].
        k: [1, K, M, D].
        v: [1, K, M, D].
        mask: [N, M], of q's dtype.
        precision: fused or primitive operators.

    Returns:
        [1, nq, N, D].
    """
    group = q.shape[1] // k.shape[1]
    if precision.fused:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=group > 1)
    # The heads of a group stand below each other, so that K and V are not repeated for each
    heads, width = k.shape[1], q.shape[3]
    scores = (q * width**-0.5).reshape(heads, -1, width) @ k[0].transpose(-1, -2)
    scores = scores.reshape(heads, group, -1, k.shape[2]) + mask
    weights = torch.softmax(scores, dim=-1).reshape(heads, -1, k.shape[2])
    return (weights @ v[0]).reshape(1, heads * group, -1, width)
