"""Reading: the published layouts, and every kind of damage named with tensor, expected and got."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from motedge.checkpoint.config import FAMILIES
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.provenance import HUB, Provenance, read_provenance, write_provenance
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.safetensors_header import read_header
from motedge.errors import CheckpointError

KEY = "layers.1.self_attn.add_q_proj.weight"


def weights(root):
    return root / "transformer" / "diffusion_pytorch_model.safetensors"


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_recognised_by_its_config(tiny, family):
    checkpoint = Checkpoint.open(tiny(family))
    checkpoint.check()
    assert (checkpoint.family, checkpoint.variant, checkpoint.revision) == (family, "policy-droid", None)
    assert (checkpoint.policy.action_chunk_size, checkpoint.policy.conditioning_fps) == (32, 15.0)
    assert checkpoint.policy.domain_name == "droid_lerobot"
    assert checkpoint.provenance.source == "synthetic" and checkpoint.provenance.seed == 7
    assert checkpoint.vae_config.z_dim == 48 and checkpoint.vae_config.encoder_widths == (8, 8, 16, 32, 32)


def test_raw_bytes_and_tensor_agree(tiny):
    torch = pytest.importorskip("torch")
    store = Checkpoint.open(tiny("edge")).transformer
    raw, tensor = store.raw(KEY), store.tensor(KEY)
    assert raw.dtype == np.uint8 and raw.size == tensor.numel() * 2 and not raw.flags.writeable
    assert tensor.dtype == torch.bfloat16 and store.dtype(KEY) == "BF16" and tuple(tensor.shape) == store.shape(KEY)
    assert bytes(tensor.view(torch.uint8).numpy().tobytes()) == raw.tobytes()
    assert torch.equal(store.finite_tensor(KEY), tensor)


def test_writing_into_a_tensor_does_not_reach_the_file(broken):
    store = Checkpoint.open(broken).transformer
    before = bytes(store.raw(KEY))
    store.tensor(KEY).zero_()
    assert bytes(store.raw(KEY)) == before


def test_tensors_are_those_that_safetensors_reads(tiny):
    from safetensors.torch import load_file

    torch = pytest.importorskip("torch")
    for store in Checkpoint.open(tiny("edge")).stores:
        (file,) = store.headers
        for key, value in load_file(file).items():
            assert torch.equal(store.tensor(key), value)


def test_the_headers_are_those_that_safetensors_reads(tiny):
    from safetensors import safe_open

    entries, _ = read_header(weights(tiny("edge")))
    with safe_open(weights(tiny("edge")), framework="np") as file:
        assert sorted(file.keys()) == sorted(entries)
        for key in file.keys():  # noqa: SIM118 -- not a dict
            view = file.get_slice(key)
            assert (tuple(view.get_shape()), view.get_dtype()) == (entries[key].shape, entries[key].dtype)


def test_a_file_written_by_safetensors_loads(broken, change_weights):
    change_weights(weights(broken), lambda tensors: None)
    Checkpoint.open(broken).check()


def test_a_base_checkpoint_without_optional_parts_loads(broken):
    """A partial download: no root files, no vision encoder, further files that nobody asked for."""
    shutil.rmtree(broken / "vision_encoder")
    for name in ("config.json", "model_index.json", "checkpoint.json", "motedge.json", "model.safetensors.index.json"):
        (broken / name).unlink()
    (broken / "sound_tokenizer").mkdir()
    (broken / "sound_tokenizer" / "config.json").write_text("{}")
    (broken / "README.md").write_text("card")
    shutil.copy(weights(broken), broken / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    checkpoint = Checkpoint.open(broken)
    checkpoint.check()
    assert checkpoint.variant == "base" and checkpoint.vision_encoder is None and checkpoint.provenance is None


def test_the_generator_is_found_without_the_root_index(tiny):
    root_index = json.loads((tiny("edge") / "model.safetensors.index.json").read_text())
    assert KEY not in root_index["weight_map"]
    assert KEY in Checkpoint.open(tiny("edge")).transformer


def test_the_revision_is_read_from_the_hub_cache_and_from_local_copies(broken, tmp_path):
    (broken / "motedge.json").unlink()
    commit = "a9d944e2" + "0" * 32
    metadata = broken / ".cache" / "huggingface" / "download" / "transformer" / "config.json.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"{commit}\n0123\n1.0\n")
    assert Checkpoint.open(broken).revision == commit
    shutil.rmtree(broken / ".cache")
    snapshot = tmp_path / "models--nvidia--Cosmos3-Edge" / "snapshots" / commit
    shutil.copytree(broken, snapshot)
    assert Checkpoint.open(snapshot).revision == commit
    assert Checkpoint.open(snapshot).provenance.id == "nvidia/Cosmos3-Edge"


def test_the_provenance_record_survives_a_round_trip_and_refuses_newer_schemas(tmp_path):
    provenance = Provenance(source=HUB, id="nvidia/Cosmos3-Edge", revision="f" * 40, requested="main")
    write_provenance(tmp_path, provenance)
    assert read_provenance(tmp_path) == provenance
    edit_json(tmp_path / "motedge.json", schema="motedge.checkpoint/v2")
    with pytest.raises(CheckpointError, match="another schema"):
        read_provenance(tmp_path)


def test_the_fingerprint_is_that_of_the_content(tiny, broken, change_weights, tmp_path):
    original = Checkpoint.open(tiny("edge")).fingerprint()
    assert Checkpoint.open(broken).fingerprint() == original
    other_seed = make_checkpoint(tmp_path / "other", "edge", "policy-droid", "tiny", seed=8)
    assert Checkpoint.open(other_seed).fingerprint() != original
    (other_seed / "motedge.json").unlink()
    shutil.copy(broken / "motedge.json", other_seed)
    assert Checkpoint.open(other_seed).fingerprint() != original
    edit_json(broken / "checkpoint.json", note="changed")
    assert Checkpoint.open(broken).fingerprint() != original


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named(tmp_path):
    root = make_checkpoint(tmp_path / "sharded", "edge", shard_bytes=2_000_000)
    shard = sorted((root / "transformer").glob("*-00003-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match="weight files are missing") as caught:
        Checkpoint.open(root)
    assert shard.name in str(caught.value)


def test_an_index_that_names_a_tensor_its_shard_lacks(tmp_path):
    root = make_checkpoint(tmp_path / "sharded", "edge", shard_bytes=2_000_000)
    path = root / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][KEY] = index["weight_map"]["embed_tokens.weight"]
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="its shard lacks"):
        Checkpoint.open(root)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_that_points_outside_is_refused(tmp_path, name):
    root = make_checkpoint(tmp_path / "sharded", "edge", shard_bytes=2_000_000)
    path = root / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][KEY] = name
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside its own folder"):
        Checkpoint.open(root)


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[]"])
def test_a_damaged_index_is_an_error(broken, content):
    (broken / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="index can't be read"):
        Checkpoint.open(broken)


@pytest.mark.parametrize("keep", [0, 4, 100, 20_000, -1])
def test_a_truncated_file_is_an_error(broken, keep):
    data = weights(broken).read_bytes()
    weights(broken).write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        Checkpoint.open(broken)


def test_a_file_of_another_format_is_an_error(broken):
    weights(broken).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": "not this"}' + bytes(100))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        Checkpoint.open(broken)


def test_no_weights_at_all_is_an_error(broken):
    weights(broken).unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        Checkpoint.open(broken)


def test_a_wrong_shape_names_tensor_and_fields(broken, change_weights):
    change_weights(weights(broken), lambda t: t.update({KEY: t[KEY][:-1].contiguous()}))
    with pytest.raises(CheckpointError, match=KEY) as caught:
        Checkpoint.open(broken).check()
    assert caught.value.expected == [256, 256] and caught.value.got == [255, 256]
    assert "num_attention_heads" in caught.value.why


def test_a_missing_tensor_is_named(broken, change_weights):
    change_weights(weights(broken), lambda tensors: tensors.pop(KEY))
    with pytest.raises(CheckpointError, match=f"missing.*{KEY}"):
        Checkpoint.open(broken).check()


def test_an_unexpected_tensor_is_named(broken, change_weights):
    change_weights(weights(broken), lambda t: t.update({"layers.0.mlp.gate_proj.weight": t["proj_in.bias"].clone()}))
    with pytest.raises(CheckpointError, match="gate_proj") as caught:
        Checkpoint.open(broken).check()
    assert "hidden_act" in caught.value.why


def test_a_quantised_checkpoint_is_refused_as_such(broken, change_weights):
    change_weights(weights(broken), lambda t: t.update({"lm_head.weight_scale": t["proj_in.bias"][:1].clone()}))
    with pytest.raises(CheckpointError, match="quantised already"):
        Checkpoint.open(broken).check()


def test_a_dtype_that_torch_does_not_know_is_refused(broken):
    data = weights(broken).read_bytes()
    weights(broken).write_bytes(data.replace(b'"BF16"', b'"F4X4"'))
    store = Checkpoint.open(broken).transformer
    with pytest.raises(CheckpointError, match="can't be read") as caught:
        store.tensor(KEY)
    assert caught.value.got == "F4X4"


def test_a_dtype_that_is_no_float_is_refused(broken, change_weights):
    import torch

    change_weights(weights(broken), lambda t: t.update({KEY: t[KEY].to(torch.int8)}))
    with pytest.raises(CheckpointError, match="dtype") as caught:
        Checkpoint.open(broken).check()
    assert caught.value.got == "I8"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(broken, change_weights, value):
    def poison(tensors):
        tensors[KEY][3, 5] = value

    change_weights(weights(broken), poison)
    checkpoint = Checkpoint.open(broken)
    checkpoint.check()
    with pytest.raises(CheckpointError, match=KEY) as caught:
        checkpoint.transformer.finite_tensor(KEY)
    assert caught.value.got.startswith("1 of 65536")
    with pytest.raises(CheckpointError, match=KEY):
        checkpoint.check_values()
    checkpoint.check_values(["proj_in.weight"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 4}, "num_hidden_layers"),
        ({"num_hidden_layers": 2}, "num_hidden_layers"),
        ({"hidden_size": 128}, "hidden_size"),
        ({"vocab_size": 2048}, "vocab_size"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"use_und_k_norm_for_gen": False}, "use_und_k_norm_for_gen"),
        ({"action_gen": False}, "action_gen"),
        ({"sound_gen": True, "sound_dim": 64}, "sound_gen"),
        ({"qk_norm_for_text": True}, "qk_norm_for_text"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_named(broken, changes, named):
    edit_json(broken / "transformer" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=named):
        Checkpoint.open(broken).check()


def test_a_vae_config_that_contradicts_the_weights_is_named(broken):
    edit_json(broken / "vae" / "config.json", decoder_base_dim=16)
    with pytest.raises(CheckpointError, match=r"vae/config\.json"):
        Checkpoint.open(broken).check()


def test_another_model_is_refused_by_name(broken, tmp_path):
    edit_json(broken / "transformer" / "config.json", _class_name="WanTransformer3DModel")
    with pytest.raises(CheckpointError, match="WanTransformer3DModel"):
        Checkpoint.open(broken)
    edit_json(broken / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"])
    with pytest.raises(CheckpointError, match="FluxTransformer2DModel"):
        Checkpoint.open(broken)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        Checkpoint.open(tmp_path / "nothing")
    for name in ("model_index.json", "transformer/config.json"):
        with pytest.raises(CheckpointError, match="is a file, not a checkpoint folder") as caught:
            Checkpoint.open(broken / name)
        assert f"the file is in: {broken}" in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file, not a checkpoint folder") as caught:
        Checkpoint.open(tmp_path / "model.safetensors")
    assert "brings a whole one" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"transformer/config\.json"):
        Checkpoint.open(tmp_path / "empty")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_config_that_is_no_json_object_is_an_error(broken, content):
    (broken / "transformer" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json is not"):
        Checkpoint.open(broken)


def test_an_incomplete_policy_block_is_an_error(broken):
    (broken / "checkpoint.json").write_text('{"policy": {"action_chunk_size": 32}}')
    with pytest.raises(CheckpointError, match="policy block"):
        Checkpoint.open(broken)


def test_an_unknown_tensor_offers_the_closest(tiny):
    with pytest.raises(CheckpointError, match=r"did you mean 'proj_in\.weight'"):
        Checkpoint.open(tiny("edge")).transformer.tensor("proj_in.wieght")
