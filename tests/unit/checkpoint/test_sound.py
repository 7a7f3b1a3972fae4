"""The audio tokenizer in a checkpoint: keys and shapes as diffusers builds them, joined weights, faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Cosmos3AVAEAudioTokenizer

from motedge.checkpoint.inspect import inspect_checkpoint
from motedge.checkpoint.make import make_checkpoint, plan_checkpoint
from motedge.checkpoint.presets import preset
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.sound_config import SoundConfig
from motedge.checkpoint.sound_keys import sound_shapes
from motedge.errors import CheckpointError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sound") / "super", "super", "base", "tiny", seed=3)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The small parts of the checkpoint are copies, the transformer is a link."""
    target = tmp_path / "super"
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("transformer"))
    (target / "transformer").symlink_to(root / "transformer")
    return target


def _edit(root: Path, **values: object) -> None:
    path = root / "sound_tokenizer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_keys_and_shapes_are_those_of_diffusers(size: str) -> None:
    config = preset("nano", size).sound
    assert config is not None
    with torch.device("meta"):
        theirs = Cosmos3AVAEAudioTokenizer.from_config(config.to_dict())
    assert {key: tuple(value.shape) for key, value in theirs.state_dict().items()} == sound_shapes(config)


def test_the_published_values() -> None:
    """The defaults of the published class; 48 kHz over 1920 samples a latent are the transformer's 25 Hz."""
    config = preset("super", "full").sound
    with torch.device("meta"):
        assert config == SoundConfig.from_dict(dict(Cosmos3AVAEAudioTokenizer.from_config({}).config))
    assert config is not None
    assert (config.hop, config.sampling_rate / config.hop) == (1920, 25.0)
    assert config.decoder_widths == (5120, 2560, 1280, 640, 320, 320)


def test_only_models_with_sound_have_it(root: Path) -> None:
    assert "sound_tokenizer" not in plan_checkpoint("edge", "base", "tiny").components
    checkpoint = Checkpoint.open(root)
    checkpoint.check()
    report = inspect_checkpoint(root, values=True)
    assert report["problems"] == [] and report["absent"] == []
    assert report["components"]["sound_tokenizer"]["tensors"] == len(checkpoint.sound_tokenizer or ())
    assert json.loads((root / "model_index.json").read_text())["sound_tokenizer"][1] == "Cosmos3AVAEAudioTokenizer"


def test_joined_weights_are_those_of_torch(root: Path) -> None:
    theirs = Cosmos3AVAEAudioTokenizer.from_pretrained(root / "sound_tokenizer", torch_dtype=torch.float32)
    store = Checkpoint.open(root).sound_tokenizer
    assert store is not None
    for key, value in (
        ("decoder.conv1.weight", theirs.decoder.conv1),
        ("decoder.block.3.conv_t1.weight", theirs.decoder.block[3].conv_t1),
    ):
        value(torch.zeros(1, value.in_channels, 8))  # its hook joins them
        np.testing.assert_allclose(store.finite_tensor(key), value.weight.detach(), atol=1e-7)
    with pytest.raises(CheckpointError, match=r"has no tensor 'decoder.conv9.weight'"):
        store.finite_tensor("decoder.conv9.weight")


def test_a_direction_of_length_zero_is_refused(root: Path, copy: Path) -> None:
    store = Checkpoint.open(copy).sound_tokenizer
    assert store is not None
    entry = store.entry("decoder.conv1.weight_v")
    with open(entry.file, "r+b") as stream:
        stream.seek(entry.offset)
        stream.write(bytes(entry.size // entry.shape[0]))
    with pytest.raises(CheckpointError, match=r"no direction: decoder.conv1.weight_v"):
        store.finite_tensor("decoder.conv1.weight")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "AutoencoderOobleck"}, "_class_name"),
        ({"snake_logscale": False}, "snake_logscale"),
        ({"latent_mean": [0.0]}, "latent_mean"),
        ({"bottleneck": {"type": "vq"}}, "bottleneck"),
        ({"hop_size": 960}, "hop_size"),
        ({"dec_strides": [2, 4]}, "dec_c_mults"),
        ({"dec_dim": 0}, "dec_dim"),
    ],
)
def test_another_tokenizer_is_refused(copy: Path, values: dict[str, object], message: str) -> None:
    _edit(copy, **values)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(copy)


def test_weights_and_configs_that_disagree(copy: Path) -> None:
    _edit(copy, dec_dim=8)
    with pytest.raises(CheckpointError, match="a weight has the wrong shape"):
        Checkpoint.open(copy).check()
    assert len(inspect_checkpoint(copy)["problems"]) == 1
    _edit(copy, dec_dim=4, sampling_rate=44100)
    with pytest.raises(CheckpointError, match="contradict each other"):
        Checkpoint.open(copy).check()


def test_without_the_tokenizer(copy: Path) -> None:
    """As `checkpoint fetch --only policy` leaves it."""
    shutil.rmtree(copy / "sound_tokenizer")
    checkpoint = Checkpoint.open(copy)
    checkpoint.check()
    assert checkpoint.sound_tokenizer is None and checkpoint.sound_config is None
    assert inspect_checkpoint(copy)["absent"] == ["sound_tokenizer"]
