"""One policy tick in PyTorch, doing what ours does: one frame encoded, K and V kept, guidance in its interval, noise
drawn ahead, everything between image and actions on the GPU. The peer that `gpu_tick.py` measures against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motedge.bundle import Bundle
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.policy import Observation
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.droid import pack_state, unpack_actions
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.prompt import Clip, build_prompt
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.request import SamplerSettings
from motedge.runtime.rope import GenLayout, RotaryTable
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer
from motedge.runtime.unipc_coefficients import UniPCCoefficients

# As motedge.export.modules.gen.GenStep.forward, by name
Step = Callable[..., tuple[Tensor, Tensor]]


class TorchTick:
    """Acts on one bundle with torch modules.

    Args:
        bundle: tokenizer, tables and shapes come from it.
        modules: "und_prefill", "gen_step" and "vae_encoder" on `device`.
        device: "cuda" or "cpu".
        step: used in place of the module of gen_step: compiled, say.
    """

    def __init__(self, bundle: Bundle, modules: Mapping[str, Any], device: str, step: Step | None = None) -> None:
        manifest = bundle.manifest
        self._device, self._modules, self._step = device, modules, step or modules["gen_step"]
        self._tables, self._tokenizer = Tables.open(bundle), PromptTokenizer.open(bundle)
        self._rotary = RotaryTable(self._tables.inv_freq(), manifest.model["config"])
        self._shape = PolicyShape.from_manifest(manifest.shape_set, manifest.policy)
        self._robot = find_embodiment(manifest.policy["embodiment"])
        self._clip = Clip(self._shape.frames, self._shape.fps, self._shape.canvas)
        self._format, self._sizes = str(manifest.policy["prompt_format"]), bundle.contract("gen_step").sizes
        raw = self._tables.embodiment_weights(self._robot.domain_id, len(self._robot.fields))
        names = ("in_weight", "in_bias", "out_weight", "out_bias")
        self._weights = {f"action_{name}": self._to_device(getattr(raw, name)) for name in names}
        self._noise = NoiseAhead(next_seed=lambda seed: seed)
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._canvas = np.zeros((1, 3, *self._shape.canvas), np.float32)

    @torch.no_grad()
    def act(self, observation: Observation, settings: SamplerSettings, seed: int) -> Any:
        """Actions, fp32 [chunk, fields], on the host."""
        branches = [self._prompt(text) for text in (observation.instruction, "")]
        image = resize_bilinear(observation.image, self._shape.content)
        normalise(pad_canvas(image, self._shape.canvas), out=self._canvas)
        latent = self._modules["vae_encoder"](self._to_device(self._canvas))
        return unpack_actions(self.denoise(observation, latent, branches, settings, seed))

    def denoise(
        self,
        observation: Observation,
        latent: Tensor,
        branches: Sequence[Mapping[str, Tensor]],
        settings: SamplerSettings,
        seed: int,
    ) -> Any:
        """The loop: action rows, fp32 [A, Z], on the host."""
        frames, rows, columns = self._shape.latent
        vision_shape = (self._sizes["C"], frames, rows, columns)
        action_shape = (self._shape.rows, self._sizes["Z"])
        count = math.prod(vision_shape)
        noise = self._to_device(self._noise.take(seed, count)[0])
        state = torch.cat((noise, noise[: math.prod(action_shape)]))
        vision, action = state[:count].view(vision_shape), state[count:].view(action_shape)
        pose = observation.joint_position, observation.gripper_position
        clean_row = self._to_device(pack_state(*pose, rows=action_shape[0], width=action_shape[1])[:1])
        raw_dim = len(self._robot.fields)

        def hold_clean() -> None:
            vision[:, :1] = latent
            action[:1] = clean_row
            action[:, raw_dim:] = 0

        hold_clean()
        noisy = {
            name: torch.ones(n, device=self._device)
            for name, n in (("vision_noisy", frames), ("action_noisy", self._shape.rows))
        }
        for mask in noisy.values():
            mask[0] = 0
        schedule, plan = FlowSchedule(settings.steps, settings.shift), settings.guidance_plan()
        solver = _Solver(UniPCCoefficients.from_schedule(schedule))
        for k, t in enumerate(int(value) for value in schedule.timesteps):
            given = {"vision": vision, "action": action, **noisy, "t": torch.full((1,), float(t), device=self._device)}
            v = self._velocity(given, branches[0])
            if plan.active(t):
                other = self._velocity(given, branches[1])
                v = other + plan.scale * (v - other)
            state.copy_(solver.step(k, state, v))
            hold_clean()
        return action.cpu().numpy()

    def prefill(self, instruction: str) -> Tensor:
        """K and V of a prompt, computed now."""
        tokens = self._tokens(instruction)
        cos, sin = self._rotary.text(tokens.size)
        embeddings = self._tables.embeddings(tokens)
        return self._modules["und_prefill"](*(self._to_device(value) for value in (embeddings, cos, sin)))

    def step_inputs(self, instruction: str, seed: int = 0) -> dict[str, Tensor]:
        """Inputs of one forward at the first step, as gen_step takes them, on the device."""
        frames, rows, columns = self._shape.latent
        random = np.random.RandomState(seed)
        values = {
            "vision": random.standard_normal((self._sizes["C"], frames, rows, columns)).astype(np.float32),
            "action": random.standard_normal((self._shape.rows, self._sizes["Z"])).astype(np.float32),
            "vision_noisy": np.ones(frames, np.float32),
            "action_noisy": np.ones(self._shape.rows, np.float32),
            "t": np.array([999.0], np.float32),
        }
        values["vision_noisy"][0] = values["action_noisy"][0] = 0
        return {**{k: self._to_device(v) for k, v in values.items()}, **self._prompt(instruction), **self._weights}

    def close(self) -> None:
        """Stops the noise thread."""
        self._noise.close()

    def _velocity(self, given: Mapping[str, Tensor], branch: Mapping[str, Tensor]) -> Tensor:
        vision, action = self._step(**given, **branch, **self._weights)
        return torch.cat((vision.reshape(-1), action.reshape(-1)))

    def _prompt(self, instruction: str) -> dict[str, Tensor]:
        """K and V and the generator's rotary table of a prompt, kept on the device."""
        if instruction not in self._kept:
            frames, rows, columns = self._shape.latent
            count = self._tokens(instruction).size
            layout = GenLayout(count, frames, rows, columns, self._shape.rows, self._shape.fps, self._shape.fps)
            cos, sin = (self._to_device(value) for value in self._rotary.generator(layout))
            with torch.no_grad():
                self._kept[instruction] = {"cos": cos, "sin": sin, "und_kv": self.prefill(instruction)}
        return self._kept[instruction]

    def _tokens(self, instruction: str) -> Any:
        return self._tokenizer.encode(build_prompt(instruction, self._clip, self._format))

    def _to_device(self, value: Any) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.to(self._device, non_blocking=True)


class _Solver:
    """UniPC in torch's operators, by the same table as ours."""

    def __init__(self, table: UniPCCoefficients) -> None:
        self._table = table
        self._corrected: Tensor | None = None
        self._history: list[Tensor] = []

    def step(self, k: int, state: Tensor, velocity: Tensor) -> Tensor:
        """State of step k -> k + 1."""
        m = state - float(self._table.sigmas[k]) * velocity
        self._history = [m, *self._history][: self._table.order + 1]
        corrected = _sum(self._table.correct[k], [state, self._corrected, *self._history])
        self._corrected = corrected
        return _sum(self._table.predict[k], [corrected, *self._history])


def _sum(factors: Any, terms: Sequence[Tensor | None]) -> Tensor:
    parts = [float(f) * term for f, term in zip(factors, terms) if f != 0 and term is not None]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
