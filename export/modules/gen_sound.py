"""The generator's step with sound tokens beside vision and action (Nano and Super)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motedge.checkpoint.config import ModelConfig
from motedge.export.modules.gen import GenBack, GenFront, GenLayer, PatchGrid
from motedge.export.modules.layers import Linear, Precision


class GenSoundFront(GenFront):
    """Latents, actions, sound and time to tokens."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: PatchGrid) -> None:
        super().__init__(config, precision, grid)
        width = config.sound_dim or 0
        self.audio_proj_in = Linear(width, config.hidden_size, precision.dtype, bias=True)
        self.audio_modality_embed = nn.Parameter(
            torch.empty(config.hidden_size, dtype=precision.dtype), requires_grad=False
        )

    def forward(  # type: ignore[override]
        self,
        vision: Tensor,
        action: Tensor,
        sound: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        sound_noisy: Tensor,
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
        s = self.audio_proj_in(sound.t().to(self.dtype)) + self.audio_modality_embed
        s = s + sound_noisy.to(self.dtype)[:, None] * time
        return torch.cat((x, a, s), dim=0), cos.to(self.dtype), sin.to(self.dtype)


class GenSoundBack(GenBack):
    """Tokens to velocities."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: PatchGrid) -> None:
        super().__init__(config, precision, grid)
        self.audio_proj_out = Linear(config.hidden_size, config.sound_dim or 0, precision.dtype, bias=True)

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        sound_noisy: Tensor,
        action_out_weight: Tensor,
        action_out_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens [N, H] -> velocities fp32 [C, T, h, w], [A, Z] and [Q, J], 0 where nothing is noisy."""
        before = vision_noisy.shape[0] * self.grid.tokens_per_frame + action_noisy.shape[0]
        vision, action = super().forward(
            tokens[:before], vision_noisy, action_noisy, action_out_weight, action_out_bias
        )
        heard = self.audio_proj_out(self.norm_moe_gen(tokens[before:])).float()
        return vision, action, (heard * sound_noisy[:, None]).t()


class GenStepSound(nn.Module):
    """As `GenStep`, with sound. Tokens stand in the order vision, action, sound; positions come with cos and sin."""

    def __init__(self, config: ModelConfig, precision: Precision, grid: tuple[int, int]) -> None:
        """`grid`: latent rows and columns (h, w) of the shape set, odd sizes allowed."""
        super().__init__()
        patches = PatchGrid(grid, config.latent_channel)
        self.front = GenSoundFront(config, precision, patches)
        self.layers = nn.ModuleList(GenLayer(config, precision) for _ in range(config.num_hidden_layers))
        self.back = GenSoundBack(config, precision, patches)

    def forward(
        self,
        vision: Tensor,
        action: Tensor,
        sound: Tensor,
        vision_noisy: Tensor,
        action_noisy: Tensor,
        sound_noisy: Tensor,
        t: Tensor,
        cos: Tensor,
        sin: Tensor,
        und_kv: Tensor,
        action_in_weight: Tensor,
        action_in_bias: Tensor,
        action_out_weight: Tensor,
        action_out_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the contract (motedge.export.sound_contracts.gen_step_sound) for shapes, dtypes and units."""
        masks = vision_noisy, action_noisy, sound_noisy
        tokens, cos, sin = self.front(vision, action, sound, *masks, t, cos, sin, action_in_weight, action_in_bias)
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, cos, sin, und_kv[index : index + 1])
        result: tuple[Tensor, Tensor, Tensor] = self.back(tokens, *masks, action_out_weight, action_out_bias)
        return result
