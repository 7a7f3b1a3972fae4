"""Making checkpoints: loaded by the real libraries with no key left over, deterministic, whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import start

from motedge.checkpoint import make as make_module
from motedge.checkpoint.config import FAMILIES
from motedge.checkpoint.inspect import inspect_checkpoint
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.random_weights import bf16_bits, random_chunks
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.safetensors_stream import plan_shards
from motedge.errors import HostError, UsageError


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_the_transformer_with_no_key_left_over(tiny, family):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    model, info = diffusers.Cosmos3OmniTransformer.from_pretrained(
        tiny(family) / "transformer", output_loading_info=True, torch_dtype=torch.bfloat16
    )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    store = Checkpoint.open(tiny(family)).transformer
    ours = store.tensor("layers.1.self_attn.add_k_proj.weight")
    assert torch.equal(model.layers[1].self_attn.add_k_proj.weight, ours)


def test_diffusers_loads_the_vae_with_no_key_left_over(tiny):
    diffusers = pytest.importorskip("diffusers")
    model, info = diffusers.AutoencoderKLWan.from_pretrained(tiny("edge") / "vae", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert model.config.latents_mean[0] == pytest.approx(-0.2289)


@pytest.mark.parametrize("family", ["edge", "nano"])
def test_the_pipeline_accepts_the_whole_repository(tiny, family):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.Cosmos3OmniPipeline.from_pretrained(
        tiny(family), enable_safety_checker=False, torch_dtype=torch.bfloat16
    )
    assert pipeline.config.use_native_flow_schedule == (family == "edge")
    assert pipeline.config.default_use_system_prompt == (family != "edge")
    assert pipeline.llm_special_tokens["eos_token_id"] == {"edge": 11, "nano": 151645}[family]
    assert pipeline.llm_special_tokens["start_of_generation"] == {"edge": 20, "nano": 151652}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_the_root_config(tiny, family):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(tiny(family))
    ours = Checkpoint.open(tiny(family))
    assert config.text_config.hidden_size == ours.config.hidden_size
    assert config.vision_config.hidden_size == ours.vision_config.hidden_size


def test_the_activations_of_a_random_model_stay_sane(tiny):
    """Each weight must matter and none may blow up: the residual stream stays of the order of one."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.Cosmos3OmniTransformer.from_pretrained(tiny("edge") / "transformer").float()
    with torch.no_grad():
        tokens = model.embed_tokens(torch.arange(32, 64))
        position = torch.arange(32).expand(3, 32)[:, None]
        cos, sin = (x[0] for x in model.rotary_emb(position, "cpu", torch.float32))
        und, gen = model._run_decoder_stack(tokens, torch.randn(32, 256), (cos, sin, cos, sin))
        for layer in model.layers:
            tokens, _ = layer(tokens, tokens, (cos, sin, cos, sin))
    assert 0.5 < tokens.std() < 20
    for output in (und, gen):
        assert 0.8 < output.std() < 1.3


def test_a_tensor_depends_on_seed_and_name_alone():
    first = np.concatenate(list(random_chunks("a.weight", (5000, 1000), 1)))
    assert first.size == 5_000_000
    assert np.array_equal(first, np.concatenate(list(random_chunks("a.weight", (5000, 1000), 1))))
    assert not np.array_equal(first[:1000], next(random_chunks("a.weight", (5000, 1000), 2))[:1000])
    assert not np.array_equal(first[:1000], next(random_chunks("b.weight", (5000, 1000), 1))[:1000])


def test_bf16_rounding_is_that_of_torch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(10000, dtype=np.float32)
    ours = torch.from_numpy(bf16_bits(values).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(ours, torch.from_numpy(values).to(torch.bfloat16))


def test_shards_hold_the_same_weights_and_load_in_diffusers(tiny, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    root = make_checkpoint(tmp_path / "sharded", "edge", "policy-droid", "tiny", seed=7, shard_bytes=1_000_000)
    shards = sorted((root / "transformer").glob("*.safetensors"))
    assert len(shards) > 5 and shards[0].name == f"diffusion_pytorch_model-00001-of-{len(shards):05d}.safetensors"
    whole, parts = Checkpoint.open(tiny("edge")), Checkpoint.open(root)
    parts.check()
    for key in whole.transformer:
        assert np.array_equal(whole.transformer.raw(key), parts.transformer.raw(key))
    _, info = diffusers.Cosmos3OmniTransformer.from_pretrained(root / "transformer", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_tensor_above_the_limit_gets_its_own_shard():
    shapes = {"a": (10,), "b": (1000,), "c": (10,), "d": (10,)}
    assert plan_shards(shapes, "BF16", 100) == [["a"], ["b"], ["c", "d"]]


def test_sparse_full_edge_has_exact_counts_and_takes_no_space(tmp_path):
    started = time.monotonic()
    root = make_checkpoint(tmp_path / "full", "edge", "base", "full", sparse=True)
    report = inspect_checkpoint(root)
    assert time.monotonic() - started < 10
    assert report["towers"]["und"]["parameters"] == 1_946_277_376
    assert report["towers"]["gen"]["parameters"] == 1_423_379_648
    assert report["components"]["vae"]["parameters"] == 704_688_668
    assert report["components"]["vision_encoder"]["parameters"] == 489_342_704
    assert report["components"]["transformer"]["files"] == 2
    assert report["problems"] == [] and report["origin"]["sparse"] is True
    assert sum(path.stat().st_blocks for path in root.rglob("*")) * 512 < 5_000_000


def test_the_root_index_of_edge_lists_no_generator_tensor(tiny):
    index = json.loads((tiny("edge") / "model.safetensors.index.json").read_text())["weight_map"]
    assert index["layers.0.self_attn.to_q.weight"].startswith("transformer/")
    assert "layers.0.self_attn.add_q_proj.weight" not in index and "proj_in.weight" not in index
    assert index["model.projector.linear_fc1.weight"] == "vision_encoder/model.safetensors"


def test_unknown_names_are_refused_with_the_closest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'super'"):
        make_checkpoint(tmp_path / "x", "supr")
    with pytest.raises(UsageError, match="did you mean 'policy-droid'"):
        make_checkpoint(tmp_path / "x", "edge", "policy_droid")
    with pytest.raises(UsageError, match="seed is negative"):
        make_checkpoint(tmp_path / "x", "edge", seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        make_checkpoint(tmp_path / "mine", "edge")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000_000))
    with pytest.raises(HostError, match="too little disk space"):
        make_checkpoint(tmp_path / "x", "edge", size="full")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def run_out(key, shape, seed):
        if key == "layers.1.mlp.up_proj.weight":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return random_chunks(key, shape, seed)

    monkeypatch.setattr(make_module, "random_chunks", run_out)
    with pytest.raises(HostError, match="disk is full"):
        make_checkpoint(tmp_path / "x", "edge")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    """The real signal, in a process of its own, while weights are being written."""
    out = tmp_path / "x"
    code = f"from motedge.checkpoint.make import make_checkpoint; make_checkpoint({str(out)!r}, 'edge', size='full')"
    process = start([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    partial = tmp_path / "x.partial" / "transformer"
    deadline = time.monotonic() + 60
    while not (partial.exists() and any(path.stat().st_size > 1 << 20 for path in partial.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced_and_nothing_else(tmp_path):
    stale = tmp_path / "x.partial"
    stale.mkdir()
    (stale / "letters.txt").write_text("keep")
    with pytest.raises(UsageError, match="in the way"):
        make_checkpoint(tmp_path / "x", "edge", sparse=True)
    assert (stale / "letters.txt").exists()
    (stale / "motedge.json").write_text("{}")
    assert make_checkpoint(tmp_path / "x", "edge", sparse=True).exists()
    assert not stale.exists()
