"""The generator tower: one denoising forward, conditioned on the reasoner's K and V."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motedge.checkpoint.config import PATCH, ModelConfig
from motedge.export.modules.layers import MLP, Linear, Precision, RMSNorm, attend, merge_heads, rotate, split_heads

TIME_FREQUENCIES = 128  # half of the 256-wide sinusoid, spec of the timestep embedding
TIME_MAX_PERIOD = 10000.0


class GenAttention(nn.Module):
    """Full attention of generator tokens over [reasoner ; generator], without any mask."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.config, self.precision = config, precision
        width, head = config.hidden_size, config.head_dim
        query_width, kv_width = config.num_attention_heads * head, config.num_key_value_heads * head
        self.add_q_proj = Linear(width, query_width, precision.dtype)
        self.add_k_proj = Linear(width, kv_width, precision.dtype)
        self.add_v_proj = Linear(width, kv_width, precision.dtype)
        self.to_add_out = Linear(query_width, width, precision.dtype)
        self.norm_added_q = RMSNorm(head, config, precision)
        self.norm_added_k = RMSNorm(head, config, precision)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, und_kv: Tensor) -> Tensor:
        """x [N, H]; und_kv [1, 2, K, U, D] -> [N, H]."""
        kv_heads = self.config.num_key_value_heads
        q = self.norm_added_q(split_heads(self.add_q_proj(x), self.config.num_attention_heads))
        k = self.norm_added_k(split_heads(self.add_k_proj(x), kv_heads))
        v = split_heads(self.add_v_proj(x), kv_heads)
        q, k = rotate(q, cos, sin, self.precision), rotate(k, cos, sin, self.precision)
        k, v = torch.cat((und_kv[:, 0], k), dim=2), torch.cat((und_kv[:, 1], v), dim=2)
        return self.to_add_out(merge_heads(attend(q, k, v, self.precision)))


class GenLayer(nn.Module):
    """One generator layer. Names end in _moe_gen where the checkpoint's do."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.input_layernorm_moe_gen = RMSNorm(config.hidden_size, config, precision)
        self.self_attn = GenAttention(config, precision)
        self.post_attention_layernorm_moe_gen = RMSNorm(config.hidden_size, config, precision)
        self.mlp_moe_gen = MLP(config, precision)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, und_kv: Tensor) -> Tensor:
        """x [N, H]; cos, sin [N, R]; und_kv [1, 2, K, U, D] -> [N, H]."""
        x = x + self.self_attn(self.input_layernorm_moe_gen(x), cos, sin, und_kv)
        return x + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(x))


class TimeEmbedder(nn.Module):
    """Timestep -> vector added to noisy tokens; fp32 throughout, as the model was trained."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.timestep_scale
        self.linear_1 = Linear(2 * TIME_FREQUENCIES, config.hidden_size, torch.float32, bias=True, keep_fp32=True)
        self.linear_2 = Linear(config.hidden_size, config.hidden_size, torch.float32, bias=True, keep_fp32=True)

    def forward(self, t: Tensor) -> Tensor:
        """t fp32 [1], 0..1000 -> fp32 [1, H]."""
        index = torch.arange(TIME_FREQUENCIES, dtype=torch.float32, device=t.device)
        exponent = -math.log(TIME_MAX_PERIOD) * index / TIME_FREQUENCIES
        angle = (t * self.scale)[:, None] * torch.exp(exponent)[None, :]
        wave = torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1)
        return self.linear_2(F.silu(self.linear_1(wave)))


class PatchGrid:
    """Latent cells to tokens and back: 2 x 2 cells a token, odd sizes padded with zeros at the bottom and right."""

    def __init__(self, grid: tuple[int, int], channels: int) -> None:
        (self.h, self.w), self.channels = grid, channels
        self.rows, self.columns = -(-self.h // PATCH), -(-self.w // PATCH)

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.columns

    def patchify(self, vision: Tensor) -> Tensor:
        """[C, T, h, w] -> [T * rows * columns, 4 C]; a feature is (row parity * 2 + column parity) * C + channel."""
        odd_w, odd_h = self.columns * PATCH - self.w, self.rows * PATCH - self.h
        if odd_h or odd_w:
            vision = F.pad(vision, (0, odd_w, 0, odd_h))
        cells = vision.reshape(self.channels, -1, self.rows, PATCH, self.columns, PATCH)
        return cells.permute(1, 2, 4, 3, 5, 0).reshape(-1, PATCH * PATCH * self.channels)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of `patchify`, cropped to h x w."""
        cells = patches.reshape(-1, self.rows, self.columns, PATCH, PATCH, self.channels).permute(5, 0, 1, 3, 2, 4)
        return cells.reshape(self.channels, -1, self.rows * PATCH, self.columns * PATCH)[:, :, : self.h, : self.w]


class GenFront(nn.Module):
    """Latents, actions and time to tokens; host inputs to the module's type."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: PatchGrid) -> None:
        super().__init__()
        self.dtype, self.grid = precision.dtype, grid
        self.proj_in = Linear(config.patch_latent_dim, config.hidden_size, precision.dtype, bias=True)
        self.time_embedder = TimeEmbedder(config)
        self.action_modality_embed = nn.Parameter(
            torch.empty(config.hidden_size, dtype=precision.dtype), requires_grad=False
        )

    def forward(
        self,
        vision: Tensor,
        action: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        t: Tensor,
        cos: Tensor,
        sin: Tensor,
        action_in_weight: Tensor,
        action_in_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> tokens [N, H], cos and sin [N, R] in the module's type."""
        time = self.time_embedder(t).to(self.dtype)
        x = self.vision_tokens(vision, vision_noisy, time)
        a = self.action_tokens(action, action_noisy, time, action_in_weight, action_in_bias)
        return torch.cat((x, a), dim=0), cos.to(self.dtype), sin.to(self.dtype)

    def vision_tokens(self, vision: Tensor, vision_noisy: Tensor, time: Tensor) -> Tensor:
        """[C, T, h, w] -> [T * rows * columns, H]; time [1, H] is added where the frame is noisy."""
        dtype = self.dtype
        x = self.proj_in(self.grid.patchify(vision).to(dtype))
        frames = x.reshape(-1, self.grid.tokens_per_frame, x.shape[-1])
        return (frames + vision_noisy.to(dtype)[:, None, None] * time).reshape(-1, x.shape[-1])

    def action_tokens(
        self, action: Tensor, action_noisy: Tensor, time: Tensor, action_in_weight: Tensor, action_in_bias: Tensor
    ) -> Tensor:
        """[A, Z] -> [A, H]; time [1, H] is added where the row is noisy."""
        dtype = self.dtype
        a = action.to(dtype) @ action_in_weight.to(dtype) + action_in_bias.to(dtype)
        return a + self.action_modality_embed + action_noisy.to(dtype)[:, None] * time


class GenBack(nn.Module):
    """Tokens to velocities."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: PatchGrid) -> None:
        super().__init__()
        self.dtype, self.grid = precision.dtype, grid
        self.norm_moe_gen = RMSNorm(config.hidden_size, config, precision)
        self.proj_out = Linear(config.hidden_size, config.patch_latent_dim, precision.dtype, bias=True)

    def forward(
        self,
        tokens: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        action_out_weight: Tensor,
        action_out_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """tokens [N, H] -> velocities fp32 [C, T, h, w] and [A, Z], 0 on clean frames and rows."""
        tokens = self.norm_moe_gen(tokens)
        count = vision_noisy.shape[0] * self.grid.tokens_per_frame
        x, a = tokens[:count], tokens[count:]
        vision_velocity = self.grid.unpatchify(self.proj_out(x).float()) * vision_noisy[None, :, None, None]
        a = a @ action_out_weight.to(self.dtype) + action_out_bias.to(self.dtype)
        return vision_velocity, a.float() * action_noisy[:, None]


class GenStep(nn.Module):
    """Noisy latents of vision and action at time t -> their velocities. Clean frames and rows get velocity 0."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: tuple[int, int]) -> None:
        """`grid`: latent rows and columns (h, w) of the shape set, odd sizes allowed."""
        super().__init__()
        patches = PatchGrid(grid, config.latent_channel)
        self.front = GenFront(config, precision, patches)
        self.layers = nn.ModuleList(GenLayer(config, precision) for _ in range(config.num_hidden_layers))
        self.back = GenBack(config, precision, patches)

    def forward(
        self,
        vision: Tensor,
        action: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        t: Tensor,
        cos: Tensor,
        sin: Tensor,
        und_kv: Tensor,
        action_in_weight: Tensor,
        action_in_bias: Tensor,
        action_out_weight: Tensor,
        action_out_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See the contract (motedge.export.contracts.gen_step) for shapes, dtypes and units."""
        tokens, cos, sin = self.front(
            vision, action, vision_noisy, action_noisy, t, cos, sin, action_in_weight, action_in_bias
        )
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, cos, sin, und_kv[index : index + 1])
        result: tuple[Tensor, Tensor] = self.back(
            tokens, vision_noisy, action_noisy, action_out_weight, action_out_bias
        )
        return result
