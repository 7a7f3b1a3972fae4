"""The reference pipeline, diffusers' Cosmos3OmniPipeline, as an oracle: whole requests with our noise, fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from diffusers.pipelines.cosmos import pipeline_cosmos3_omni as module
from transformers import AutoTokenizer


@dataclass(frozen=True)
class Reference:
    """What the pipeline made."""

    # fp32 [C, T, h, w]
    latents: np.ndarray
    # fp32 [A, raw_dim], or None
    actions: np.ndarray | None
    # fp32 [F, rows, columns, 3], 0 to 1
    frames: np.ndarray


class Pipeline:
    """The pipeline over one checkpoint, on the schedule that NVIDIA samples with."""

    def __init__(self, checkpoint: Path) -> None:
        self.raw = module.Cosmos3OmniPipeline(
            transformer=oracle.load_transformer(checkpoint),
            text_tokenizer=AutoTokenizer.from_pretrained(checkpoint / "text_tokenizer"),
            vae=oracle.load_vae(checkpoint),
            scheduler=UniPCMultistepScheduler(),
            enable_safety_checker=False,
            use_native_flow_schedule=True,
        )
        self.raw.set_progress_bar_config(disable=True)

    def run(
        self, seed: int, latent: Sequence[int], *, shift: float, rows: int | None = None, **request: Any
    ) -> Reference:
        """One request, started from numpy's noise: of `latent` = (C, T, h, w), and of `rows` action rows.

        Conditioning is put into the noise by the pipeline itself, which draws both from one generator.
        """
        self.raw.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2
        )
        shapes = [(1, *latent)] + ([(rows, 64)] if rows else [])
        noise = [np.random.RandomState(seed).standard_normal(shape).astype(np.float32) for shape in shapes]
        drawn = iter(noise)

        def draw(shape: Sequence[int], **_: Any) -> torch.Tensor:
            value = next(drawn)
            assert tuple(shape) == value.shape
            return torch.from_numpy(value)

        last: dict[str, torch.Tensor] = {}

        def keep(pipe: Any, index: int, t: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            last.update(values)
            return {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "randn_tensor", draw)
            made = self.raw(
                output_type="np", enable_safety_check=False, callback_on_step_end=keep, generator=None, **request
            )
        actions = None if made.action is None else made.action[0].numpy()
        return Reference(last["latents"][0].numpy(), actions, np.asarray(made.video))
