"""The prompts of a training, exactly as the runtime makes them, and the rotary tables of their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from examples.train_small.data.dataset import SIDE
from examples.train_small.model.towers import Prompts
from examples.train_small.road.expert import RATE_HZ, ROWS
from examples.train_small.road.instructions import BEHAVIOURS, TRAINED
from motedge.checkpoint.config import ModelConfig
from motedge.runtime.generate.caption import Take, action_caption
from motedge.runtime.generate.fitting import CELL
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.rope import TEMPORAL_COMPRESSION, GenLayout, RotaryTable
from motedge.runtime.text import PromptTokenizer

EMBODIMENT = "av"
FRAMES = ROWS + 1
LATENT_FRAMES = 1 + (FRAMES - 1) // TEMPORAL_COMPRESSION
GRID = SIDE // CELL
# Of Edge's tokenizers
_EOS, _VISION_START = 11, 20
# The text without an instruction comes first: what guidance steers away from
EMPTY = 0
# Every instruction, behaviour by behaviour, as many of each
VARIANTS = len(TRAINED[BEHAVIOURS[0]])
INSTRUCTIONS: tuple[str, ...] = tuple(text for name in BEHAVIOURS for text in TRAINED[name])


def text_of(behaviour: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Places in `make_prompts(...)` of instructions by behaviour and variant, int64."""
    return 1 + behaviour * VARIANTS + variant


def full_prompt(instruction: str) -> str:
    """The whole text of an instruction, as `motedge generate policy --embodiment av` gives it to the model."""
    take = Take(FRAMES, float(RATE_HZ), (SIDE, SIDE))
    return action_caption(instruction, take, find_embodiment(EMBODIMENT).framing())


def open_tokenizer(folder: Path) -> PromptTokenizer:
    """The tokenizer of a checkpoint's text_tokenizer/."""
    return PromptTokenizer.read(folder, eos=_EOS, vision_start=_VISION_START)


def make_prompts(
    tokenizer: PromptTokenizer, config: ModelConfig, instructions: Sequence[str] = INSTRUCTIONS
) -> Prompts:
    """The empty prompt, then those of the instructions."""
    encoded = [tokenizer.encode(""), *(tokenizer.encode(full_prompt(text)) for text in instructions)]
    lengths = [len(ids) for ids in encoded]
    tokens = np.zeros((len(encoded), max(lengths)), np.int64)
    for row, ids in zip(tokens, encoded, strict=True):
        row[: len(ids)] = ids
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    table = RotaryTable((1.0 / config.rope_theta**exponent).numpy(), config.to_dict())
    rate = float(RATE_HZ)
    tables = [
        table.generator(GenLayout(length, LATENT_FRAMES, GRID, GRID, ROWS, rate, rate, action_start_offset=1))
        for length in lengths
    ]
    gen_cos, gen_sin = (torch.from_numpy(np.stack([pair[i] for pair in tables])) for i in (0, 1))
    cos, sin = (torch.from_numpy(part) for part in table.text(max(lengths)))
    return Prompts(torch.from_numpy(tokens), torch.tensor(lengths), (cos, sin), (gen_cos, gen_sin))
