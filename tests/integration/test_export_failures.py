"""Checkpoints and disks that an export can't use: a clear error, and nothing half-written stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import edit_json, edit_weights, interrupt, transformer_file
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, CheckpointError, ExportError, HostError, MotedgeError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants

GEN_WEIGHT = "layers.1.self_attn.add_q_proj.weight"
UND_WEIGHT = "layers.0.mlp.down_proj.weight"


def export(checkpoint: Path, out: Path, variants: str = "primitive-fp32") -> Any:
    return export_bundle(Checkpoint.open(checkpoint), out, ExportOptions(MINI, parse_variants(variants)))


def assert_no_bundle(root: Path) -> None:
    assert not (root / "manifest.json").exists()
    assert not list(root.rglob("*.partial"))
    with pytest.raises(BundleError, match="interrupted" if root.exists() else "no bundle"):
        Bundle.open(root)


@pytest.fixture
def copy(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A tiny Edge checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoints["edge"], tmp_path / "checkpoint"))


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """The fp32 bundle of that checkpoint, to be taken apart."""
    return Path(shutil.copytree(bundles["edge"], tmp_path / "bundle"))


def _missing_shard(root: Path) -> None:
    shutil.rmtree(root)
    make_checkpoint(root, "edge", "policy-droid", "tiny", seed=7, shard_bytes=2_000_000)
    sorted((root / "transformer").glob("*-00002-*.safetensors"))[0].unlink()


def _truncated(root: Path) -> None:
    data = transformer_file(root).read_bytes()
    transformer_file(root).write_bytes(data[: len(data) // 2])


def _wrong_shape(root: Path) -> None:
    edit_weights(transformer_file(root), lambda t: t.update({GEN_WEIGHT: t[GEN_WEIGHT][:-1].contiguous()}))


def _contradiction(root: Path) -> None:
    edit_json(root / "transformer/config.json", num_hidden_layers=4)


def _no_tokenizer(root: Path) -> None:
    (root / "text_tokenizer/tokenizer.json").unlink()


def _no_vae(root: Path) -> None:
    shutil.rmtree(root / "vae")


def _no_actions(root: Path) -> None:
    edit_json(root / "transformer/config.json", action_gen=False)
    edit_weights(transformer_file(root), lambda t: [t.pop(k) for k in list(t) if k.startswith("action_")])


@pytest.mark.parametrize(
    ("damage", "error", "named"),
    [
        (_missing_shard, CheckpointError, "weight files are missing"),
        (_truncated, CheckpointError, "truncated or damaged"),
        (_wrong_shape, CheckpointError, GEN_WEIGHT),
        (_contradiction, CheckpointError, "num_hidden_layers"),
        (_no_tokenizer, CheckpointError, r"tokenizer\.json"),
        (_no_vae, CheckpointError, "vae"),
        (_no_actions, ExportError, "generates no actions"),
    ],
)
def test_a_bad_checkpoint_is_refused_before_anything_is_written(
    damage: Any, error: type[MotedgeError], named: str, copy: Path, tmp_path: Path
) -> None:
    damage(copy)
    with pytest.raises(error, match=named) as caught:
        export(copy, tmp_path / "out")
    assert type(caught.value) is error and caught.value.fix
    assert not (tmp_path / "out").exists()


def _poison(key: str, value: float) -> Any:
    def edit(tensors: dict[str, Any]) -> None:
        tensors[key].view(-1)[5] = value

    return edit


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("key", "file"),
    [
        (GEN_WEIGHT, "graphs/weights/gen_step.fp32.data"),
        (UND_WEIGHT, "graphs/weights/und_prefill.fp32.data"),
        ("time_embedder.linear_1.bias", "graphs/weights/gen_step.kept-fp32.data"),
        ("embed_tokens.weight", "tables/embed_tokens.bin"),
        ("action_proj_in.fc.weight", "tables/action_in_weight.bin"),
    ],
)
def test_a_weight_that_is_not_finite_is_named(
    key: str, file: str, value: float, copy: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = Checkpoint.open(copy).fingerprint()
    edit_weights(transformer_file(copy), _poison(key, value))
    # The graphs of the sound checkpoint are kept: only the damaged file is made
    monkeypatch.setattr(Checkpoint, "fingerprint", lambda self: fingerprint)
    interrupt(bundle, [file])
    with pytest.raises(CheckpointError, match=f"not finite: {key}") as caught:
        export(copy, bundle)
    assert caught.value.got.startswith("1 of ")
    assert_no_bundle(bundle)
    assert not (bundle / file).exists()


@pytest.mark.parametrize("key", [GEN_WEIGHT, UND_WEIGHT])
def test_a_value_beyond_fp16_is_refused_with_a_way_out(
    key: str, copy: Path, full_variants: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = Checkpoint.open(copy).fingerprint()
    edit_weights(transformer_file(copy), _poison(key, 1e6))
    monkeypatch.setattr(Checkpoint, "fingerprint", lambda self: fingerprint)
    graph = "gen_step" if key == GEN_WEIGHT else "und_prefill"
    bundle = Path(shutil.copytree(full_variants["edge"], tmp_path / "bundle"))
    interrupt(bundle, [f"graphs/weights/{graph}.fp16.data", f"graphs/weights/{graph}.bf16.data"])
    with pytest.raises(ExportError, match=f"{key} does not fit fp16") as caught:
        export(copy, bundle, "primitive-fp16")
    assert caught.value.expected == "values within 65504" and "9.994e+05" in caught.value.got  # 1e6 in bf16
    assert_no_bundle(bundle)
    export(copy, bundle, "fused-bf16")  # what the message advises
    assert Bundle.open(bundle).variant(graph, "fused-bf16").dtype == "bf16"


# --- disks ------------------------------------------------------------------------------------------------------------


WEIGHTS = "graphs/weights/gen_step.fp32.data"


def test_a_disk_that_fills_up_while_weights_are_written(
    checkpoints: dict[str, Path], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third write fails, with bytes on the disk already."""
    interrupt(bundle, [WEIGHTS])

    def failing_open(path: Path, mode: str, **options: Any) -> Any:
        stream = open(path, mode, **options)  # noqa: SIM115 - the caller closes it
        if not str(path).endswith(".data.partial"):
            return stream
        return _FullDisk(stream)

    monkeypatch.setattr("motedge.files.open", failing_open, raising=False)
    with pytest.raises(HostError, match="disk is full"):
        export(checkpoints["edge"], bundle)
    assert_no_bundle(bundle)
    monkeypatch.undo()
    assert export(checkpoints["edge"], bundle).written == [WEIGHTS]


class _FullDisk:
    def __init__(self, stream: Any) -> None:
        self._stream, self._writes = stream, 0

    def write(self, data: bytes) -> int:
        self._writes += 1
        if self._writes > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._stream.write(data)

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()


@pytest.mark.parametrize("name", [WEIGHTS, "graphs/gen_step.primitive-fp32.onnx", "samples/gen_step.npz"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the kernel's full device is missing")
def test_a_disk_that_is_full_by_the_kernels_word(name: str, checkpoints: dict[str, Path], bundle: Path) -> None:
    interrupt(bundle, [name])
    (bundle / (name + ".partial")).symlink_to("/dev/full")
    with pytest.raises(HostError, match="disk is full") as caught:
        export(checkpoints["edge"], bundle)
    assert name.rpartition("/")[2] in str(caught.value)
    assert_no_bundle(bundle)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB: too small for the fp32 weights of the tiny Edge."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_real_small_disk(small_disk: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="too little disk space for the export"):
        export(checkpoints["edge"], small_disk / "bundle")
    assert not (small_disk / "bundle").exists()
    # Another program takes the space after the check
    monkeypatch.setattr("motedge.export.job.require_free", lambda *arguments: None)
    with pytest.raises(HostError, match="disk is full"):
        export(checkpoints["edge"], small_disk / "bundle")
    assert_no_bundle(small_disk / "bundle")


def test_too_little_space_is_said_before_any_work(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("motedge.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HostError, match="too little disk space for the export") as caught:
        export(checkpoints["edge"], tmp_path / "out")
    assert "1.00 MB free" in caught.value.got and caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HostError, match="can't write"):
        export(checkpoints["edge"], tmp_path / "out")


def test_a_file_in_the_place_of_the_folder(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        export(checkpoints["edge"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_manifest_of_a_newer_schema_stops_export_and_runtime(checkpoints: dict[str, Path], bundle: Path) -> None:
    edit_json(bundle / "manifest.json", schema="motedge.bundle/v2")
    before = json.loads((bundle / "manifest.json").read_text())
    for use in (Bundle.open, lambda root: export(checkpoints["edge"], root)):
        with pytest.raises(BundleError, match="newer schema") as caught:
            use(bundle)
        assert (caught.value.expected, caught.value.got) == ("motedge.bundle/v1", "motedge.bundle/v2")
    assert json.loads((bundle / "manifest.json").read_text()) == before
