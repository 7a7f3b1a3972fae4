"""Sound on onnxruntime against diffusers: decoder, lengths, what is refused, engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Cosmos3AVAEAudioTokenizer
from tensorrt_rtx_build import build_engine
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, ContractError, ExportError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.plan import make_plan
from motedge.export.variants import parse_variants
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.sound import SoundDecoder, open_sound_decoder

pytestmark = pytest.mark.slow
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("checkpoint") / "super"
    return Checkpoint.open(make_checkpoint(root, "super", "base", "tiny", seed=7))


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundle") / "super"
    options = ExportOptions(MINI, parse_variants("primitive-fp32,fused-fp16"), "none", ("sound",))
    export_bundle(checkpoint, root, options)
    return Bundle.open(root)


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> SoundDecoder:
    return open_sound_decoder(bundle, variant="primitive-fp32")


def _latent(count: int) -> np.ndarray:
    return np.random.RandomState(count).standard_normal((64, count)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 15, 21])
def test_the_waveform_is_that_of_diffusers(checkpoint: Checkpoint, decoder: SoundDecoder, count: int) -> None:
    """A shape set of 9 frames at 15 Hz takes 15 latents, its longest video of 13 frames 22."""
    theirs = Cosmos3AVAEAudioTokenizer.from_pretrained(
        checkpoint.root / "sound_tokenizer", torch_dtype=torch.float32
    ).double()
    with torch.no_grad():
        expected = theirs.decode(torch.from_numpy(_latent(count)).double()).numpy()
    got = decoder.decode(_latent(count))
    assert got.shape == (2, 1920 * count) and decoder.sample_rate_hz == 48000
    assert expected.std() > 0.02 and np.abs(expected).max() <= 1
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=0)


def test_sixteen_bits(bundle: Bundle, decoder: SoundDecoder) -> None:
    """The error is of the size of fp16's rounding, 2^-11."""
    latent = _latent(9)
    exact = decoder.decode(latent)
    half = open_sound_decoder(bundle, variant="fused-fp16").decode(latent)
    assert np.linalg.norm(half - exact) < 3e-3 * np.linalg.norm(exact)


def test_bad_input(decoder: SoundDecoder) -> None:
    for latent in (_latent(3)[:5], _latent(3)[0], _latent(3)[:, :0]):
        with pytest.raises(ContractError, match="no latents of a sound"):
            decoder.decode(latent)
    with pytest.raises(ContractError, match="another range of J"):
        decoder.decode(_latent(23))
    broken = _latent(3)
    broken[5, 1] = np.nan
    with pytest.raises(NonFiniteError, match="sound_decoder"):
        decoder.decode(broken)


def test_only_models_with_sound(tmp_path: Path, bundle: Bundle) -> None:
    assert bundle.manifest.model["sound_config"]["sampling_rate"] == 48000
    assert not any("sound is left out" in note for note in bundle.manifest.notes)
    edge = Checkpoint.open(make_checkpoint(tmp_path / "edge", "edge", "policy-droid", "tiny"))
    with pytest.raises(ExportError, match="a model without sound"):
        make_plan(edge, MINI, parse_variants("primitive-fp32"), ("sound",))
    export_bundle(edge, tmp_path / "bundle", ExportOptions(MINI, parse_variants("primitive-fp32"), "none"))
    with pytest.raises(BundleError, match="--extras sound"):
        open_sound_decoder(Bundle.open(tmp_path / "bundle"))


def test_an_engine_is_built(bundle: Bundle) -> None:
    """By TensorRT-RTX, for a GPU that need not be here: transposed convolutions whose output is padded."""
    variant = bundle.variant("sound_decoder", "fused-fp16")
    size, _ = build_engine(bundle.root / variant.file, bundle.contract("sound_decoder"), "12.0")
    assert size > variant.facts["parameters"] * 2
