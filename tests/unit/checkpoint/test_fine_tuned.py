"""Fine-tuned weights in other forms: cosmos-framework's names in torch's distributed format, and low-rank adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint import FileSystemWriter, save

from motedge.checkpoint import reasoner_keys
from motedge.checkpoint.convert import convert_checkpoint
from motedge.checkpoint.framework_keys import framework_name, published_names
from motedge.checkpoint.keys import tower_of, transformer_shapes
from motedge.checkpoint.lora import merge_adapter
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import CheckpointError, UsageError

Q = "layers.1.self_attn.add_q_proj"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    root = tmp_path_factory.mktemp("bases")
    for family in ("edge", "nano"):
        make_checkpoint(root / family, family, "policy-droid", "tiny", seed=1)
    return {family: Checkpoint.open(root / family) for family in ("edge", "nano")}


def _trained(base: Checkpoint, factor: float) -> dict[str, torch.Tensor]:
    """Published name -> a value that training could have given it."""
    return {key: (base.transformer.tensor(key).float() * factor).bfloat16() for key in base.transformer}


def _save_dcp(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save(dict(tensors), storage_writer=FileSystemWriter(str(folder)), no_dist=True)
    return folder


def _dcp(folder: Path, base: Checkpoint, below: str = "") -> Path:
    averaged = {f"{below}net_ema.{framework_name(k)}": v for k, v in _trained(base, 0.5).items()}
    last = {f"{below}net.{framework_name(k)}": v for k, v in _trained(base, 2.0).items()}
    return _save_dcp(folder, {**averaged, **last})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("layers.3.self_attn.to_out.weight", "language_model.model.layers.3.self_attn.o_proj.weight"),
        ("layers.3.self_attn.to_add_out.weight", "language_model.model.layers.3.self_attn.o_proj_moe_gen.weight"),
        ("layers.0.self_attn.norm_added_k.weight", "language_model.model.layers.0.self_attn.k_norm_moe_gen.weight"),
        (
            "layers.0.self_attn.k_norm_und_for_gen.weight",
            "language_model.model.layers.0.self_attn.k_norm_und_for_gen.weight",
        ),
        ("layers.7.mlp_moe_gen.up_proj.weight", "language_model.model.layers.7.mlp_moe_gen.up_proj.weight"),
        (
            "layers.7.post_attention_layernorm_moe_gen.weight",
            "language_model.model.layers.7.post_attention_layernorm_moe_gen.weight",
        ),
        ("norm_moe_gen.weight", "language_model.model.norm_moe_gen.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("proj_in.bias", "vae2llm.bias"),
        ("time_embedder.linear_2.weight", "time_embedder.mlp.2.weight"),
        ("action_proj_out.fc.weight", "llm2action.fc.weight"),
        ("action_modality_embed", "action_modality_embed"),
        ("audio_modality_embed", "sound_modality_embed"),
    ],
)
def test_framework_names(key: str, name: str) -> None:
    assert framework_name(key) == name


def test_no_two_tensors_have_one_name(bases: dict[str, Checkpoint]) -> None:
    for base in bases.values():
        keys = list(transformer_shapes(base.config))
        assert len(published_names(keys)) == len(keys)


@pytest.mark.parametrize(
    ("family", "weights", "factor", "below"),
    [
        ("edge", "ema", 0.5, ""),
        ("edge", "model", 2.0, "model."),
        # Its vocabulary makes it large
        pytest.param("nano", "ema", 0.5, "", marks=pytest.mark.slow),
    ],
)
def test_a_framework_checkpoint_comes_out_published(
    bases: dict[str, Checkpoint], tmp_path: Path, family: str, weights: str, factor: float, below: str
) -> None:
    base = bases[family]
    source = _dcp(tmp_path / "dcp", base, below)
    # Small shards, so that the index is written too
    out = convert_checkpoint(source, base, tmp_path / "out", weights=weights, shard_bytes=200_000)
    made = Checkpoint.open(out)
    made.check()
    for key, value in _trained(base, factor).items():
        assert torch.equal(made.transformer.tensor(key), value), key
    assert made.fingerprint() != base.fingerprint()
    for store, other in ((made.vae, base.vae), (made.vision_encoder, base.vision_encoder)):
        assert store is not None and other is not None
        assert all(torch.equal(store.tensor(k), other.tensor(k)) for k in other)
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert all((out / file).is_file() for file in index.values())


def test_framework_checkpoints_that_do_not_fit(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base, out = bases["edge"], tmp_path / "out"
    source = _dcp(tmp_path / "dcp", base)
    with pytest.raises(UsageError, match="unknown kind of weights"):
        convert_checkpoint(source, base, out, weights="emma")
    with pytest.raises(CheckpointError, match=r"wrong shape: net_ema\.language_model\.model\.embed_tokens"):
        convert_checkpoint(source, bases["nano"], out)
    with pytest.raises(CheckpointError, match="not a framework checkpoint"):
        convert_checkpoint(tmp_path, base, out)
    trained = {f"net.{framework_name(k)}": v for k, v in _trained(base, 1.0).items()}
    with pytest.raises(CheckpointError, match="holds no ema weights"):
        convert_checkpoint(_save_dcp(tmp_path / "plain", trained), base, out)
    name = f"net.{framework_name(f'{Q}.weight')}"
    wrong = {**trained, name: trained[name][:, :-1].contiguous()}
    with pytest.raises(CheckpointError, match="wrong shape"):
        convert_checkpoint(_save_dcp(tmp_path / "shape", wrong), base, out, weights="model")
    less = {key: value for key, value in trained.items() if key != name}
    with pytest.raises(CheckpointError, match=r"lacks net\.language_model.*q_proj_moe_gen"):
        convert_checkpoint(_save_dcp(tmp_path / "less", less), base, out, weights="model")
    nan = {**trained, name: torch.full_like(trained[name], torch.nan)}
    with pytest.raises(CheckpointError, match=r"not finite: layers\.1\.self_attn\.add_q_proj"):
        convert_checkpoint(_save_dcp(tmp_path / "nan", nan), base, out, weights="model")
    (tmp_path / "dcp" / ".metadata").write_bytes(b"not a pickle")
    with pytest.raises(CheckpointError, match="damaged"):
        convert_checkpoint(source, base, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("layers.3.self_attn.to_out.weight", "layers.6.mixer.o_proj.weight"),
        ("layers.3.input_layernorm.weight", "layers.6.norm.weight"),
        ("layers.3.mlp.down_proj.weight", "layers.7.mixer.down_proj.weight"),
        ("layers.3.post_attention_layernorm.weight", "layers.7.norm.weight"),
        ("embed_tokens.weight", "embeddings.weight"),
        ("norm.weight", "norm_f.weight"),
        ("layers.3.self_attn.k_norm_und_for_gen.weight", None),
        ("layers.3.self_attn.add_q_proj.weight", None),
        ("layers.3.mlp_moe_gen.up_proj.weight", None),
        ("norm_moe_gen.weight", None),
    ],
)
def test_names_of_the_reasoner_alone(key: str, name: str | None) -> None:
    assert reasoner_keys.reasoner_name(key) == name


def test_every_tensor_of_the_reasoner_has_a_name(bases: dict[str, Checkpoint]) -> None:
    keys = list(transformer_shapes(bases["edge"].config))
    known = set(reasoner_keys.published_names(keys).values())
    rest = {key for key in keys if tower_of(key) == "und" and not key.endswith("k_norm_und_for_gen.weight")} - known
    assert rest == {"lm_head.weight"} and {tower_of(key) for key in known} == {"und"}


def _reasoner(base: Checkpoint, factor: float) -> dict[str, torch.Tensor]:
    trained = _trained(base, factor)
    names = reasoner_keys.published_names(list(trained))
    found = {reasoner_keys.PREFIX + name: trained[key] for name, key in names.items()}
    return {**found, "lm_head.weight": trained["lm_head.weight"]}


def test_a_reasoner_alone_keeps_the_base_s_generator(
    bases: dict[str, Checkpoint], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = bases["edge"]
    tensors = _reasoner(base, 0.5)
    save_file(tensors, str(tmp_path / "model.safetensors"))
    made = Checkpoint.open(convert_checkpoint(tmp_path, base, tmp_path / "out"))
    made.check()
    assert "are the base's own" in caplog.text
    names = {*reasoner_keys.published_names(list(base.transformer)).values(), "lm_head.weight"}
    for key in base.transformer:
        expected = base.transformer.tensor(key).float() * (0.5 if key in names else 1.0)
        assert torch.equal(made.transformer.tensor(key), expected.bfloat16()), key


def test_framework_names_in_safetensors(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base = bases["edge"]
    tensors = {f"model.net.{framework_name(k)}": v for k, v in _trained(base, 0.5).items()}
    save_file(tensors, str(tmp_path / "model.safetensors"))
    made = Checkpoint.open(convert_checkpoint(tmp_path, base, tmp_path / "out", weights="model"))
    assert torch.equal(made.transformer.tensor("norm.weight"), _trained(base, 0.5)["norm.weight"])
    with pytest.raises(CheckpointError, match="in no known way"):
        convert_checkpoint(tmp_path, base, tmp_path / "other", weights="ema")


def test_safetensors_that_do_not_fit(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base, out = bases["edge"], tmp_path / "out"
    file, name = tmp_path / "model.safetensors", f"{reasoner_keys.PREFIX}layers.1.mixer.up_proj.weight"
    good = _reasoner(base, 0.5)
    for tensors, message in (
        ({k: v for k, v in good.items() if k != name}, r"lacks model\.language_model\.layers\.1\.mixer\.up_proj"),
        ({k: v for k, v in good.items() if k != "lm_head.weight"}, r"lacks lm_head"),
        ({**good, name: good[name][:-1].contiguous()}, "wrong shape"),
        ({**good, name: torch.full_like(good[name], torch.inf)}, r"not finite: layers\.0\.mlp\.up_proj"),
        ({"a": torch.zeros(1)}, "in no known way"),
    ):
        save_file(tensors, str(file))
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(tmp_path, base, out)
    save_file(good, str(file))
    with pytest.raises(CheckpointError, match="of Edge's reasoner"):
        convert_checkpoint(tmp_path, bases["nano"], out)
    assert not out.exists()


def _factors(base: Checkpoint, rank: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    outputs, inputs = base.transformer.shape(f"{Q}.weight")
    seeded = torch.Generator().manual_seed(3)
    return torch.randn(rank, inputs, generator=seeded), torch.randn(outputs, rank, generator=seeded)


@pytest.mark.parametrize(
    ("prefix", "module", "a", "b", "alpha"),
    [
        ("base_model.model.", Q, "lora_A.weight", "lora_B.weight", "config"),
        ("transformer.", Q, "lora_A.default.weight", "lora_B.default.weight", None),
        ("", framework_name(Q), "lora_down.weight", "lora_up.weight", "tensor"),
        ("base_model.model.net.", framework_name(Q), "lora_A.weight", "lora_B.weight", None),
    ],
)
def test_an_adapter_is_merged(
    bases: dict[str, Checkpoint], tmp_path: Path, prefix: str, module: str, a: str, b: str, alpha: str | None
) -> None:
    base, folder = bases["edge"], tmp_path / "adapter"
    low, high = _factors(base)
    tensors = {f"{prefix}{module}.{a}": low, f"{prefix}{module}.{b}": high}
    folder.mkdir()
    scale = 1.0 if alpha is None else 8 / 4
    if alpha == "tensor":
        tensors[f"{prefix}{module}.alpha"] = torch.tensor(8.0)
    if alpha == "config":
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "bias": "none"}))
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    made = Checkpoint.open(merge_adapter(base, folder, tmp_path / "out"))
    made.check()
    for key in base.transformer:
        before = base.transformer.tensor(key)
        expected = (before.float() + scale * (high @ low)).bfloat16() if key == f"{Q}.weight" else before
        assert torch.equal(made.transformer.tensor(key), expected), key


def test_an_adapter_of_the_reasoner_alone(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base, key = bases["edge"], "layers.1.self_attn.to_q.weight"
    outputs, inputs = base.transformer.shape(key)
    low, high = torch.ones(2, inputs), torch.ones(outputs, 2)
    module = "base_model.model.model.language_model.layers.2.mixer.q_proj"
    tensors = {f"{module}.lora_A.weight": low, f"{module}.lora_B.weight": high}
    save_file(tensors, str(tmp_path / "adapter_model.safetensors"))
    made = Checkpoint.open(merge_adapter(base, tmp_path, tmp_path / "out"))
    expected = (base.transformer.tensor(key).float() + 2).bfloat16()
    assert torch.equal(made.transformer.tensor(key), expected)


def test_rank_stabilised_adapters(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base = bases["edge"]
    low, high = _factors(base)
    save_file({f"{Q}.lora_A.weight": low, f"{Q}.lora_B.weight": high}, str(tmp_path / "adapter_model.safetensors"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "use_rslora": True}))
    made = Checkpoint.open(merge_adapter(base, tmp_path, tmp_path / "out"))
    expected = (base.transformer.tensor(f"{Q}.weight").float() + 4 * (high @ low)).bfloat16()
    assert torch.equal(made.transformer.tensor(f"{Q}.weight"), expected)


def test_adapters_that_do_not_fit(bases: dict[str, Checkpoint], tmp_path: Path) -> None:
    base, out, file = bases["edge"], tmp_path / "out", tmp_path / "adapter_model.safetensors"
    low, high = _factors(base)
    good = {f"{Q}.lora_A.weight": low, f"{Q}.lora_B.weight": high}
    cases = [
        ({"layers.9.self_attn.add_q_proj.lora_A.weight": low}, r"no module layers\.9"),
        ({f"{Q}.lora_A.weight": low}, "one of the two factors"),
        ({**good, f"{Q}.lora_magnitude_vector": torch.ones(3)}, "is no factor of a LoRA"),
        ({**good, f"{Q}.lora_B.weight": high[:, :-1].contiguous()}, "do not fit each other"),
        ({**good, f"{Q}.lora_A.weight": low[:, :-1].contiguous()}, "has another shape"),
        ({**good, f"{Q}.lora_A.weight": torch.full_like(low, torch.inf)}, "not finite"),
        ({}, "holds no low-rank factors"),
    ]
    for tensors, message in cases:
        save_file(tensors, str(file))
        with pytest.raises(CheckpointError, match=message):
            merge_adapter(base, tmp_path, out)
    save_file(good, str(file))
    for config, message in (
        ({"use_dora": True}, "more than"),
        ({"rank_pattern": {"x": 1}}, "by module"),
        ({"r": 8, "lora_alpha": 8}, "another rank"),
        ([], "not an"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            merge_adapter(base, tmp_path, out)
    (tmp_path / "adapter_config.json").unlink()
    file.write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        merge_adapter(base, tmp_path, out)
    with pytest.raises(CheckpointError, match="no adapter"):
        merge_adapter(base, tmp_path / "nowhere", out)
    assert not out.exists()
