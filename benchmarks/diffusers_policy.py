"""The peer: the same policy request in torch eager, through the modules and methods of diffusers' own pipeline.

diffusers 0.42.1 has a policy mode without the DROID server's packing (a clean state row in front of the actions, and
its longer camera prompt), and it shrinks an image of 540 rows to 528 before it pads, so its `__call__` can't be used
whole. It is given the padded canvas. What is taken from it as it is: tokenizing, image preprocessing, `_encode_video`,
packing (once a prompt), the transformer, `_mask_velocity_predictions`, UniPC with one scheduler a modality. The order
of work is that of its `__call__`:

* the image is repeated to the whole clip (33 frames), and the VAE encodes all of it; only latent frame 0 is used;
* the transformer is called once a branch and step, and computes the reasoner tower anew in each of these calls;
* both branches run at every step.

Left out in its favour: drawing noise, decoding video, and the safety check.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import Cosmos3OmniPipeline
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import _ACTION_RESOLUTION_BINS, get_3d_mrope_ids_vae_tokens
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor

from motedge.errors import ContractError, UsageError
from motedge.runtime.noise import standard_normal
from motedge.runtime.policy.canvas import pad_canvas
from motedge.runtime.policy.droid import pack_state, unpack_actions
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.policy import Policy
from motedge.runtime.request import SamplerSettings

_CPU = "cpu"


@dataclass(frozen=True)
class PeerTick:
    """Actions of one request, and where its time went."""

    # fp32 [chunk, raw_dim]
    actions: np.ndarray[Any, np.dtype[np.float32]]
    forwards: int
    timings_ms: dict[str, float]


@dataclass(frozen=True)
class PeerStart:
    """One request, ready to be denoised."""

    # [1, C, T, h, w] and [A, Z]: noise with the clean frame and the state row filled in
    vision: Tensor
    action: Tensor
    # Keyword arguments of the transformer that stay the same over all steps: with the prompt, and without
    conditional: dict[str, Any]
    unconditional: dict[str, Any]


class DiffusersPolicy:
    """diffusers' modules in fp32 behind the request of a motedge policy.

    Args:
        checkpoint: the folder that the bundle was exported from.
        policy: tells the prompt's text, shapes and embodiment, so that both sides are asked the same.
        seed: of the noise, as the policy draws it.
    """

    def __init__(self, checkpoint: Path, policy: Policy, seed: int) -> None:
        self._pipe, self._policy = _load_pipeline(checkpoint), policy
        self._transformer = self._pipe.transformer
        frames, rows, columns = policy.shape.latent
        vision_shape = (1, self._transformer.config.latent_channel, frames, rows, columns)
        action_shape = (policy.shape.rows, self._transformer.config.action_dim)
        self._vision_noise = torch.from_numpy(standard_normal(seed, vision_shape))
        self._action_noise = torch.from_numpy(standard_normal(seed, action_shape))
        self._raw_dim = len(policy.embodiment.fields)

    @torch.no_grad()
    def act(self, observation: Observation, settings: SamplerSettings, *, one_frame: bool = False) -> PeerTick:
        """One request.

        Args:
            observation: as for `Policy.act`.
            settings: steps and guidance. An interval is not diffusers' own; it is honoured for comparison.
            one_frame: encode the image alone instead of the whole clip, which diffusers doesn't.
        """
        laps, clock = {}, time.perf_counter()

        def lap(name: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            laps[name], clock = (now - clock) * 1e3, now

        prompts = self._tokenize(observation)
        lap("tokenize_ms")
        clip, size = self._condition(observation)
        lap("image_ms")
        latent = self.encode(clip, size, one_frame=one_frame)
        lap("vae_ms")
        start = self._start(observation, latent, prompts)
        lap("pack_ms")
        action, forwards = self._denoise(start, settings)
        lap("loop_ms")
        actions = unpack_actions(action.numpy())
        laps["total_ms"] = sum(laps.values())
        return PeerTick(actions, forwards, laps)

    @torch.no_grad()
    def start(self, observation: Observation) -> PeerStart:
        """The request at its first step."""
        clip, size = self._condition(observation)
        return self._start(observation, self.encode(clip, size, one_frame=True), self._tokenize(observation))

    def encode(self, clip: Tensor, size: Tensor, *, one_frame: bool) -> Tensor:
        """Clip [1, 3, F, Y, X] in -1..1 -> normalised, cropped latent [1, C, T, h, w]; T is 1 for one frame."""
        latent = self._pipe._encode_video(clip[:, :, :1] if one_frame else clip)
        cropped: Tensor = self._pipe._remove_action_video_padding_from_latent(latent.contiguous().float(), size)
        return cropped

    def forward(self, prompt: dict[str, Any], vision: Tensor, action: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """One call of the transformer: velocities [C, T, h, w] and [A, Z], not masked."""
        with torch.no_grad():
            visions, _, actions = self._transformer(
                **prompt,
                vision_tokens=[vision],
                vision_timesteps=torch.full((prompt["vision_mse_loss_indexes"].numel(),), t),
                action_tokens=[action],
                action_timesteps=torch.full((prompt["action_mse_loss_indexes"].numel(),), t),
                return_dict=False,
            )
        return visions[0], actions[0]

    def _tokenize(self, observation: Observation) -> tuple[list[int], list[int]]:
        text = self._policy.prompt(observation.instruction)
        plain = {"add_resolution_template": False, "add_duration_template": False}
        tokens: tuple[list[int], list[int]] = self._pipe.tokenize_prompt(text, "", **plain)
        return tokens

    def _condition(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The clip as diffusers prepares it from one image, and the sizes by which it crops the latent."""
        shape = self._policy.shape
        image, _ = self._policy.see(observation)
        clip, _, rows, columns = self._pipe._prepare_action_video_conditioning(
            [Image.fromarray(pad_canvas(image, shape.canvas))],
            _tier(shape.canvas),
            shape.frames,
            device=_CPU,
            dtype=torch.float32,
        )
        if (rows, columns) != shape.canvas:
            raise ContractError("diffusers took another canvas", expected=shape.canvas, got=(rows, columns))
        return clip, torch.tensor([*shape.canvas, *shape.content], dtype=torch.float32)

    def _start(self, observation: Observation, latent: Tensor, prompts: tuple[list[int], list[int]]) -> PeerStart:
        vision, action = self._vision_noise.clone(), self._action_noise.clone()
        vision[:, :, :1] = latent[:, :, :1]
        state = pack_state(
            observation.joint_position, observation.gripper_position, rows=action.shape[0], width=action.shape[1]
        )
        action[0], action[:, self._raw_dim :] = torch.from_numpy(state[0]), 0
        packed = [self._pack(tokens, vision, action) for tokens in prompts]
        return PeerStart(vision, action, *packed)

    def _pack(self, tokens: list[int], vision: Tensor, action: Tensor) -> dict[str, Any]:
        pipe, fps = self._pipe, self._policy.shape.fps
        text = pipe._prepare_text_segment(tokens, _CPU)
        offset, count = text["vision_start_temporal_offset"], text["und_len"]
        vision_part = pipe._prepare_vision_segment(vision, True, offset, fps, count, _CPU, [0])
        count += vision_part["num_vision_tokens"]
        action_part = pipe._prepare_action_segment(action, [0], offset, fps, count, _CPU)
        # diffusers counts action rows from 1; with a state row in front they start at frame 0
        action_ids, _ = get_3d_mrope_ids_vae_tokens(
            grid_t=action.shape[0],
            grid_h=1,
            grid_w=1,
            temporal_offset=offset,
            fps=fps,
            base_fps=float(self._transformer.config.base_fps),
            temporal_compression_factor=1,
            base_temporal_compression_factor=pipe.vae_scale_factor_temporal,
            start_frame_offset=0,
        )
        packed = {**text, **vision_part, **action_part}
        ids = (packed["text_mrope_ids"], packed["vision_mrope_ids"], action_ids)
        return {
            "position_ids": torch.cat(ids, dim=1),
            "sequence_length": count + action_part["action_len"],
            "action_domain_ids": [torch.tensor([self._policy.embodiment.domain_id])],
            **{name: packed[name] for name in _STATIC},
        }

    def _denoise(self, start: PeerStart, settings: SamplerSettings) -> tuple[Tensor, int]:
        """The pipeline's loop; returns the actions [A, Z] and how many forwards it took."""
        vision_solver, action_solver = self._schedulers(settings)
        plan, forwards = settings.guidance_plan(), 0
        vision, action = start.vision, start.action
        for t in vision_solver.timesteps:
            v, a = self._masked(start.conditional, vision, action, t.item())
            forwards += 1
            if plan.active(t.item()):
                v_uncond, a_uncond = self._masked(start.unconditional, vision, action, t.item())
                v, a = v_uncond + plan.scale * (v - v_uncond), a_uncond + plan.scale * (a - a_uncond)
                forwards += 1
            vision = vision_solver.step(v.unsqueeze(0), t, vision.unsqueeze(0), return_dict=False)[0].squeeze(0)
            action = action_solver.step(a.unsqueeze(0), t, action.unsqueeze(0), return_dict=False)[0].squeeze(0)
            action[:, self._raw_dim :] = 0
        return action, forwards

    def _masked(self, prompt: dict[str, Any], vision: Tensor, action: Tensor, t: float) -> tuple[Tensor, Tensor]:
        v, a = self.forward(prompt, vision, action, t)
        clean_frames, clean_rows = torch.zeros(vision.shape[2], 1, 1), torch.zeros(action.shape[0], 1)
        clean_frames[0] = clean_rows[0] = 1
        masks = {"vision_condition_mask": [clean_frames], "action_condition_mask": [clean_rows]}
        velocities = self._pipe._mask_velocity_predictions(
            [v], None, preds_action=[a], raw_action_dim=self._raw_dim, **masks
        )
        return velocities[0].float(), velocities[2].float()

    def _schedulers(self, settings: SamplerSettings) -> tuple[Any, Any]:
        scheduler = type(self._pipe.scheduler).from_config(self._pipe.scheduler.config, flow_shift=settings.shift)
        sigmas = np.linspace(1.0 - 1.0 / scheduler.config.num_train_timesteps, 0.0, settings.steps + 1)[:-1]
        scheduler.set_timesteps(settings.steps, device=_CPU, sigmas=sigmas)
        return scheduler, copy.deepcopy(scheduler)


# Arguments of the transformer that packing makes once a prompt
_STATIC = (
    "input_ids",
    "text_indexes",
    "und_len",
    "vision_token_shapes",
    "vision_sequence_indexes",
    "vision_mse_loss_indexes",
    "vision_noisy_frame_indexes",
    "action_token_shapes",
    "action_sequence_indexes",
    "action_mse_loss_indexes",
    "action_noisy_frame_indexes",
)


def _load_pipeline(checkpoint: Path) -> Any:
    diffusers_logging.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline: Any = Cosmos3OmniPipeline
        pipe = pipeline.from_pretrained(str(checkpoint), torch_dtype=torch.float32, enable_safety_checker=False)
    pipe.transformer.eval()
    pipe.vae.eval()
    return pipe


def _tier(canvas: tuple[int, int]) -> int:
    """diffusers' resolution tier that has this canvas."""
    for tier, sizes in _ACTION_RESOLUTION_BINS.items():
        if canvas in sizes.values():
            return int(tier)
    known = ", ".join(str(size) for sizes in _ACTION_RESOLUTION_BINS.values() for size in sizes.values())
    raise UsageError("diffusers has no such canvas", expected=known, got=canvas)
