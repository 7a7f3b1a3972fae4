"""The small model of examples/train_small: the training's modules against diffusers, through files that it writes."""

from __future__ import annotations

from pathlib import Path

import examples_package  # noqa: F401
import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="the instructions come with the road, which needs motedge[drive]")

from diffusers_oracle import Request, decode, encode, encode_video, load_transformer, load_vae, velocity

from examples.train_small.model.checkpoint import load_module, rounded, with_statistics, write_small
from examples.train_small.model.preset import small_preset
from examples.train_small.model.towers import Prompts, Towers
from examples.train_small.model.vae import Vae
from examples.train_small.train.texts import (
    FRAMES,
    INSTRUCTIONS,
    LATENT_FRAMES,
    full_prompt,
    make_prompts,
    open_tokenizer,
)
from motedge.checkpoint.policy_metadata import PolicyMetadata
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import DataError

POLICY = PolicyMetadata(action_chunk_size=16, conditioning_fps=10.0, domain_name="av")
SIZE = 5_000_000


def _write(root: Path) -> tuple[Towers, Vae]:
    """Untrained weights, none of them zero, so that each is seen by the comparison."""
    torch.manual_seed(3)
    preset = with_statistics(small_preset(), (0.1,) * 48, (0.7,) * 48)
    towers, vae = Towers(preset.transformer), Vae(preset.vae)
    with torch.no_grad():
        for module in (towers, vae):
            for parameter in module.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    write_small(root, preset, dict(towers.named_parameters()), dict(vae.named_parameters()), POLICY)
    return towers, vae


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    _write(root)
    return root


@pytest.fixture(scope="module")
def prompts(checkpoint: Path) -> Prompts:
    return make_prompts(open_tokenizer(checkpoint / "text_tokenizer"), small_preset().transformer)


def test_all_of_it_is_smaller_than_five_megabytes(checkpoint: Path) -> None:
    assert sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) < SIZE


def test_it_is_read_as_a_policy_of_edge(checkpoint: Path) -> None:
    found = Checkpoint.open(checkpoint)
    assert found.family == "edge"
    assert found.policy == POLICY
    assert found.vae_config.latents_std == (0.7,) * 48


def test_a_batch_of_instructions_has_the_velocities_of_diffusers(checkpoint: Path, prompts: Prompts) -> None:
    towers = Towers(small_preset().transformer)
    load_module(towers, Checkpoint.open(checkpoint), "transformer")
    generator = torch.Generator().manual_seed(5)
    vision = torch.randn(4, 48, LATENT_FRAMES, 6, 6, generator=generator)
    action = torch.randn(4, 16, 64, generator=generator)
    which, t = torch.tensor([0, 4, 12, 4]), torch.tensor([999.0, 833.0, 310.0, 1.0])
    noisy = torch.tensor([0.0, 1, 1, 1, 1])
    with torch.no_grad():
        made = towers(prompts, which, vision, action, noisy, t, 1)
    oracle = load_transformer(checkpoint)
    for i in range(4):
        length = int(prompts.visible[which[i]].sum())
        tokens = prompts.tokens[which[i], :length].tolist()
        request = Request(tokens, vision[i], action[i], [0], [], 10.0, 1, 1)
        v, a = velocity(oracle, request, float(t[i]))
        torch.testing.assert_close(made[0][i, :, 1:], v[:, 1:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(made[1][i], a, rtol=1e-4, atol=1e-4)


def test_the_vae_is_that_of_diffusers(checkpoint: Path) -> None:
    vae, oracle = Vae(small_preset().vae), load_vae(checkpoint)
    load_module(vae, Checkpoint.open(checkpoint), "vae")
    clips = torch.rand(2, 3, 5, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latents = (vae.encode(clips)[0] - 0.1) / 0.7
        frames = vae.decode(latents * 0.7 + 0.1).clamp(-1, 1)
    for clip, latent, made in zip(clips, latents, frames, strict=True):
        torch.testing.assert_close(latent, encode_video(oracle, clip), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(latent[:, :1], encode(oracle, clip[None, :, 0]), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(made, decode(oracle, latent), rtol=1e-3, atol=1e-4)


def test_files_hold_the_weights_rounded_to_bf16(tmp_path: Path) -> None:
    towers, _ = _write(tmp_path)
    again = Towers(small_preset().transformer)
    load_module(again, Checkpoint.open(tmp_path), "transformer")
    expected = rounded(dict(towers.named_parameters()))
    for key, parameter in again.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[key], rtol=0, atol=0)


def test_weights_with_nan_are_not_written(tmp_path: Path) -> None:
    preset = small_preset()
    towers, vae = Towers(preset.transformer), Vae(preset.vae)
    with torch.no_grad():
        towers.layers[2].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(DataError, match=r"layers\.2\.mlp\.up_proj"):
        write_small(tmp_path, preset, dict(towers.named_parameters()), dict(vae.named_parameters()), POLICY)


def test_prompts_are_those_of_a_request(checkpoint: Path, prompts: Prompts) -> None:
    tokenizer = open_tokenizer(checkpoint / "text_tokenizer")
    assert np.array_equal(tokenizer.encode(""), prompts.tokens[0, : int(prompts.visible[0].sum())])
    text = full_prompt(INSTRUCTIONS[0])
    assert '"duration": "1s", "fps": 10.0, "resolution": {"H": 96, "W": 96}' in text
    assert FRAMES == 17
    assert np.array_equal(tokenizer.encode(text), prompts.tokens[1, : int(prompts.visible[1].sum())])
