"""The reference implementation, diffusers, as an oracle: velocities, a plain CFG loop and the VAE, fp32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import AutoencoderKLWan, Cosmos3OmniTransformer, UniPCMultistepScheduler
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import Cosmos3OmniPipeline, get_3d_mrope_ids_vae_tokens
from torch import Tensor

FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class Request:
    """One packed sample: vision [C, T, h, w] and action [A, Z] states, clean positions, prompt."""

    tokens: list[int]
    vision: Tensor
    action: Tensor
    clean_frames: list[int]
    clean_rows: list[int]
    fps: float
    action_start_offset: int
    domain_id: int


def load_transformer(checkpoint: Path) -> Cosmos3OmniTransformer:
    """The transformer in fp32."""
    model = Cosmos3OmniTransformer.from_pretrained(checkpoint / "transformer", torch_dtype=torch.float32)
    return model.float().eval()


def load_vae(checkpoint: Path) -> AutoencoderKLWan:
    """The VAE in fp32."""
    return AutoencoderKLWan.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32).eval()


def velocity(model: Cosmos3OmniTransformer, request: Request, t: float) -> tuple[Tensor, Tensor]:
    """One forward of the whole model, packed by the pipeline's own functions: velocities of vision and action."""
    pipe = SimpleNamespace(transformer=model, vae_scale_factor_temporal=FRAMES_PER_LATENT)
    text = Cosmos3OmniPipeline._prepare_text_segment(pipe, request.tokens, "cpu")
    offset, start = text["vision_start_temporal_offset"], text["und_len"]
    vision = Cosmos3OmniPipeline._prepare_vision_segment(
        pipe, request.vision[None], False, offset, request.fps, start, "cpu", request.clean_frames
    )
    action = Cosmos3OmniPipeline._prepare_action_segment(
        pipe, request.action, request.clean_rows, offset, request.fps, start + vision["num_vision_tokens"], "cpu"
    )
    # The pipeline only knows offset 1 (no state row); NVIDIA's policy server uses 0
    action_ids, _ = get_3d_mrope_ids_vae_tokens(
        grid_t=request.action.shape[0],
        grid_h=1,
        grid_w=1,
        temporal_offset=offset,
        fps=request.fps,
        base_fps=float(model.config.base_fps),
        temporal_compression_factor=1,
        base_temporal_compression_factor=FRAMES_PER_LATENT,
        start_frame_offset=request.action_start_offset,
    )
    with torch.no_grad():
        out = model(
            input_ids=text["input_ids"],
            text_indexes=text["text_indexes"],
            position_ids=torch.cat((text["text_mrope_ids"], vision["vision_mrope_ids"], action_ids), dim=1),
            und_len=start,
            sequence_length=start + vision["num_vision_tokens"] + action["action_len"],
            vision_tokens=[request.vision[None]],
            vision_token_shapes=vision["vision_token_shapes"],
            vision_sequence_indexes=vision["vision_sequence_indexes"],
            vision_mse_loss_indexes=vision["vision_mse_loss_indexes"],
            vision_timesteps=torch.full((vision["num_noisy_vision_tokens"],), float(t)),
            vision_noisy_frame_indexes=vision["vision_noisy_frame_indexes"],
            action_tokens=[request.action],
            action_token_shapes=action["action_token_shapes"],
            action_sequence_indexes=action["action_sequence_indexes"],
            action_mse_loss_indexes=action["action_mse_loss_indexes"],
            action_timesteps=torch.full((action["num_noisy_action_tokens"],), float(t)),
            action_noisy_frame_indexes=action["action_noisy_frame_indexes"],
            action_domain_ids=[torch.tensor(request.domain_id)],
        )
    return out.sample[0][0], out.action[0]


def schedulers(steps: int, shift: float) -> list[UniPCMultistepScheduler]:
    """One scheduler a modality, on the native flow schedule of Edge (and of NVIDIA's framework)."""
    made = []
    for _ in range(2):
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2
        )
        scheduler.set_timesteps(sigmas=np.linspace(1 - 1 / 1000, 0, steps + 1)[:-1], device="cpu")
        made.append(scheduler)
    return made


def cfg_loop(
    model: Cosmos3OmniTransformer,
    request: Request,
    uncond_tokens: list[int],
    *,
    steps: int,
    shift: float,
    guidance: float,
    interval: tuple[float, float] | None,
    raw_dim: int,
) -> tuple[Tensor, Tensor]:
    """A plain denoising loop over the whole model: two forwards where guidance is active, UniPC per modality."""
    vision_solver, action_solver = schedulers(steps, shift)
    vision, action = request.vision.clone(), request.action.clone()
    for t in vision_solver.timesteps.tolist():
        now = replace(request, vision=vision, action=action)
        v, a = velocity(model, now, t)
        if guidance != 1 and (interval is None or interval[0] < t < interval[1]):
            v_u, a_u = velocity(model, replace(now, tokens=uncond_tokens), t)
            v, a = v_u + guidance * (v - v_u), a_u + guidance * (a - a_u)
        a[:, raw_dim:] = 0
        v[:, request.clean_frames], a[request.clean_rows] = 0, 0
        vision = vision_solver.step(v, t, vision, return_dict=False)[0]
        action = action_solver.step(a, t, action, return_dict=False)[0]
        vision[:, request.clean_frames] = request.vision[:, request.clean_frames]
        action[request.clean_rows] = request.action[request.clean_rows]
    return vision, action


def encode(vae: AutoencoderKLWan, image: Tensor) -> Tensor:
    """The normalised latent of one image [1, 3, Y, X] -> [C, 1, Y / 16, X / 16]."""
    with torch.no_grad():
        mean = vae.encode(image.unsqueeze(2)).latent_dist.mode()[0]
    shift = torch.tensor(vae.config.latents_mean)[:, None, None, None]
    scale = 1.0 / torch.tensor(vae.config.latents_std)[:, None, None, None]
    return (mean - shift) * scale


def encode_video(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """The normalised latents of a video [3, F, Y, X] -> [C, T, Y / 16, X / 16]."""
    with torch.no_grad():
        mean = vae.encode(frames[None]).latent_dist.mode()[0]
    shift, scale = _statistics(vae)
    return (mean - shift) / scale


def decode(vae: AutoencoderKLWan, latent: Tensor) -> Tensor:
    """The frames of normalised latents [C, T, h, w] -> [3, F, 16 h, 16 w]."""
    shift, scale = _statistics(vae)
    with torch.no_grad():
        return vae.decode((latent * scale + shift)[None]).sample[0]


def _statistics(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    return mean[:, None, None, None], std[:, None, None, None]
