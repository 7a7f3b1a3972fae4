"""Both towers for training: many samples at once, and parameters that are named and laid out as in the hub's files.

motedge.export.modules run one sample; here samples of different instructions share a batch. Prompts are read once
each, padded at the end, and the padding is kept out of the generator's attention. Tests hold this against
motedge.export.modules and against diffusers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.config import ModelConfig
from motedge.export.modules.gen import TIME_FREQUENCIES, TIME_MAX_PERIOD


class Norm(nn.Module):
    """x / rms(x) * weight in fp32: Nemotron's order."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Mlp(nn.Module):
    """Squared ReLU without a gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> the same."""
        inner = torch.relu(self.up_proj(x))
        return self.down_proj(inner * inner)


class Attention(nn.Module):
    """The projections of both towers' attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, head = config.hidden_size, config.head_dim
        query, key = config.num_attention_heads * head, config.num_key_value_heads * head
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(hidden, width, bias=False) for width in (query, key, key))
        self.to_out = nn.Linear(query, hidden, bias=False)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (
            nn.Linear(hidden, width, bias=False) for width in (query, key, key)
        )
        self.to_add_out = nn.Linear(query, hidden, bias=False)
        self.norm_added_q, self.norm_added_k = Norm(head, config.rms_norm_eps), Norm(head, config.rms_norm_eps)
        self.k_norm_und_for_gen = Norm(head, config.rms_norm_eps)

    def und(self, x: Tensor, rotary: tuple[Tensor, Tensor], *, last: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """x [P, U, H] -> output, none in the last layer; K for the generator and V, [P, K, U, D] each."""
        raw, value = _split(self.to_k(x), self.key_heads), _split(self.to_v(x), self.key_heads)
        seen = _rotate(self.k_norm_und_for_gen(raw), rotary)
        if last:
            return None, seen, value
        query = _rotate(_split(self.to_q(x), self.heads), rotary)
        out = _attend(query, _rotate(raw, rotary), value, causal=True)
        return self.to_out(_merge(out)), seen, value

    def gen(self, x: Tensor, rotary: tuple[Tensor, Tensor], und: tuple[Tensor, Tensor], visible: Tensor) -> Tensor:
        """x [B, N, H]; und: K and V [B, K, U, D]; visible, of keys, bool [B, 1, 1, U + N] -> [B, N, H]."""
        query = _rotate(self.norm_added_q(_split(self.add_q_proj(x), self.heads)), rotary)
        key = _rotate(self.norm_added_k(_split(self.add_k_proj(x), self.key_heads)), rotary)
        value = _split(self.add_v_proj(x), self.key_heads)
        key, value = torch.cat((und[0], key), dim=2), torch.cat((und[1], value), dim=2)
        return self.to_add_out(_merge(_attend(query, key, value, visible)))


class Layer(nn.Module):
    """One layer of both towers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden, eps), Norm(hidden, eps)
        self.input_layernorm_moe_gen, self.post_attention_layernorm_moe_gen = Norm(hidden, eps), Norm(hidden, eps)
        self.self_attn = Attention(config)
        self.mlp, self.mlp_moe_gen = Mlp(config), Mlp(config)


class Prompts(nn.Module):
    """The texts of a training: tokens, and the rotary tables that follow from their lengths."""

    tokens: Tensor
    visible: Tensor
    text_cos: Tensor
    text_sin: Tensor
    gen_cos: Tensor
    gen_sin: Tensor

    def __init__(
        self, tokens: Tensor, lengths: Tensor, text: tuple[Tensor, Tensor], gen: tuple[Tensor, Tensor]
    ) -> None:
        """tokens [P, U]; lengths [P]; text: cos and sin [U, R]; gen: cos and sin [P, N, R]."""
        super().__init__()
        self.register_buffer("tokens", tokens)
        self.register_buffer("visible", torch.arange(tokens.shape[1])[None] < lengths[:, None])
        for name, value in zip(("text_cos", "text_sin", "gen_cos", "gen_sin"), (*text, *gen), strict=True):
            self.register_buffer(name, value)


class Towers(nn.Module):
    """Noisy latents and actions of a batch -> their velocities."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, hidden = config, config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm, self.norm_moe_gen = Norm(hidden, config.rms_norm_eps), Norm(hidden, config.rms_norm_eps)
        self.lm_head = nn.Linear(hidden, config.vocab_size, bias=False)
        self.proj_in = nn.Linear(config.patch_latent_dim, hidden)
        self.proj_out = nn.Linear(hidden, config.patch_latent_dim)
        self.time_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(2 * TIME_FREQUENCIES, hidden), "linear_2": nn.Linear(hidden, hidden)}
        )
        domains, width = config.num_embodiment_domains, config.action_dim
        self.action_proj_in = nn.ModuleDict(
            {"fc": nn.Embedding(domains, width * hidden), "bias": nn.Embedding(domains, hidden)}
        )
        self.action_proj_out = nn.ModuleDict(
            {"fc": nn.Embedding(domains, hidden * width), "bias": nn.Embedding(domains, width)}
        )
        self.action_modality_embed = nn.Parameter(torch.zeros(hidden))
        self._start()

    def forward(
        self,
        prompts: Prompts,
        which: Tensor,
        vision: Tensor,
        action: Tensor,
        vision_noisy: Tensor,
        t: Tensor,
        domain: int,
    ) -> tuple[Tensor, Tensor]:
        """Velocities.

        Args:
            prompts: the texts.
            which: int64 [B], the text of each sample.
            vision: [B, C, T, h, w], even h and w.
            action: [B, A, Z], all noisy.
            vision_noisy: [T], 0 on clean frames.
            t: [B], 0 to 1000.
            domain: of the actions.
        """
        time = self._time(t)
        x = self.proj_in(patchify(vision))
        per_frame = x.shape[1] // vision.shape[2]
        x = x + vision_noisy.repeat_interleave(per_frame)[None, :, None] * time[:, None]
        width, hidden = self.config.action_dim, self.config.hidden_size
        a = action @ self.action_proj_in["fc"].weight[domain].view(width, hidden)
        a = a + self.action_proj_in["bias"].weight[domain] + self.action_modality_embed + time[:, None]
        g = self._layers(torch.cat((x, a), dim=1), prompts, which)
        g = self.norm_moe_gen(g)
        vision_velocity = unpatchify(self.proj_out(g[:, : x.shape[1]]), vision.shape)
        out = g[:, x.shape[1] :] @ self.action_proj_out["fc"].weight[domain].view(hidden, width)
        return vision_velocity * vision_noisy[:, None, None], out + self.action_proj_out["bias"].weight[domain]

    def _layers(self, g: Tensor, prompts: Prompts, which: Tensor) -> Tensor:
        u = self.embed_tokens(prompts.tokens)
        text, rotary = (prompts.text_cos, prompts.text_sin), (prompts.gen_cos[which], prompts.gen_sin[which])
        rotary = rotary[0].unsqueeze(1), rotary[1].unsqueeze(1)
        visible = F.pad(prompts.visible[which], (0, g.shape[1]), value=True)[:, None, None]
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            out, key, value = layer.self_attn.und(layer.input_layernorm(u), text, last=last)
            g = g + layer.self_attn.gen(layer.input_layernorm_moe_gen(g), rotary, (key[which], value[which]), visible)
            g = g + layer.mlp_moe_gen(layer.post_attention_layernorm_moe_gen(g))
            if out is not None:
                u = u + out
                u = u + layer.mlp(layer.post_attention_layernorm(u))
        return g

    def _time(self, t: Tensor) -> Tensor:
        index = torch.arange(TIME_FREQUENCIES, dtype=torch.float32, device=t.device)
        frequency = torch.exp(-math.log(TIME_MAX_PERIOD) * index / TIME_FREQUENCIES)
        angle = (t * self.config.timestep_scale)[:, None] * frequency
        wave = torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1)
        return self.time_embedder["linear_2"](F.silu(self.time_embedder["linear_1"](wave)))

    def _start(self) -> None:
        """Starting values: branches small beside the residual stream, heads at 0."""
        depth = (2 * len(self.layers)) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            if name.endswith(("to_out.weight", "to_add_out.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=depth * parameter.shape[1] ** -0.5)
            elif name.startswith("action_proj_in.fc"):
                nn.init.normal_(parameter, std=0.3)
            elif name.startswith("action_proj_out.fc"):
                nn.init.normal_(parameter, std=0.02)
            elif name.startswith(("action_proj_in.bias", "action_proj_out.bias")):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=1.0 if "embed" in name[:5] else parameter.shape[1] ** -0.5)
        nn.init.zeros_(self.proj_out.weight)


def patchify(vision: Tensor) -> Tensor:
    """[B, C, T, h, w] -> [B, T h w / 4, 4 C]; a feature is (row parity * 2 + column parity) * C + channel."""
    batch, channels, frames, rows, columns = vision.shape
    cells = vision.reshape(batch, channels, frames, rows // 2, 2, columns // 2, 2)
    return cells.permute(0, 2, 3, 5, 4, 6, 1).reshape(batch, frames * rows * columns // 4, 4 * channels)


def unpatchify(patches: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `patchify`."""
    batch, channels, frames, rows, columns = shape
    cells = patches.reshape(batch, frames, rows // 2, columns // 2, 2, 2, channels)
    return cells.permute(0, 6, 1, 2, 4, 3, 5).reshape(shape)


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, N, heads * D] -> [B, heads, N, D]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, *, causal: bool = False) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)
