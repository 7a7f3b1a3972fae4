"""From an adapter to a bundle that takes the place of the first in its engines: merged, exported, compared.

TensorRT itself needs a GPU: its stub takes the file's name and writes a plan (tests/unit/targets/refit).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import MINI
from torch.distributed.checkpoint import FileSystemWriter, save

from motedge.bundle import Bundle
from motedge.checkpoint.framework_keys import framework_name
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.engine_files import BUILD_FILE
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.refit.agreement import require_same_graph, require_same_model

pytestmark = pytest.mark.slow
SITE = "layers.1.mlp_moe_gen.up_proj"
VARIANTS = "primitive-fp16"
TARGET = "h200"


@pytest.fixture(scope="module")
def old(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that says that it has a refittable engine for an H200; the engine itself is not asked for."""
    root = tmp_path_factory.mktemp("refit") / "old"
    export_bundle(Checkpoint.open(checkpoints["edge"]), root, ExportOptions(MINI, parse_variants(VARIANTS), "none"))
    _record_engine(root)
    return Bundle.open(root)


def _record_engine(root: Path) -> None:
    (root / "engines" / TARGET).mkdir(parents=True)
    entry = {
        "graph": "gen_step",
        "variant": "primitive-fp16",
        "file": "gen_step.engine",
        "bytes": 1,
        "sha256": "0" * 64,
        "builder": "tensorrt",
        "builder_version": "11.4.1.5",
        "compute_capabilities": ["9.0"],
        "platform": "x86_64-linux",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "peak_anonymous_bytes": None,
        "device_memory_bytes": 1,
        "settings": BuildSettings(refittable=True).to_dict(),
        "source": "s",
        "refittable": True,
    }
    document = {"schema": "motedge.engine/v1", "target": TARGET, "engines": [entry]}
    (root / "engines" / TARGET / BUILD_FILE).write_text(json.dumps(document))


@pytest.fixture(scope="module")
def adapter(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So large that the squared ReLU of its layer needs another scale in fp16."""
    root = tmp_path_factory.mktemp("adapter")
    outputs, inputs = Checkpoint.open(checkpoints["edge"]).transformer.shape(f"{SITE}.weight")
    seeded = torch.Generator().manual_seed(5)
    factors = {
        f"transformer.{SITE}.lora_A.weight": torch.randn(2, inputs, generator=seeded) * 3,
        f"transformer.{SITE}.lora_B.weight": torch.randn(outputs, 2, generator=seeded) * 3,
    }
    save_file(factors, str(root / "pytorch_lora_weights.safetensors"))
    return root


def _hashes(bundle: Bundle) -> dict[str, str]:
    return {n: e.sha256 for n, e in bundle.manifest.files.items() if e.role in ("weights", "graph", "table")}


def test_an_adapter_s_bundle_fits_the_engines_of_the_first(
    checkpoints: dict[str, Path], old: Bundle, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_root = tmp_path / "new"
    command = ["refit", str(old.root), "--weights", str(adapter), "--base", str(checkpoints["edge"])]
    # No TensorRT is here to put it into the engine; its bundle stays, what led to it goes
    assert main([*command, "--out", str(new_root), "--target", TARGET]) == 3
    assert "tensorrt is not installed" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"new"}
    new = Bundle.open(new_root)
    require_same_model(old, new)
    changed = set()
    for graph, entry in old.manifest.graphs.items():
        for variant in entry.variants:
            require_same_graph(old, new, graph, variant)
            names = new.variant(graph, variant).weights
            changed |= {(graph, n) for n in names if _hashes(new)[n] != _hashes(old)[n]}
    assert {graph for graph, _ in changed} == {"gen_step"}
    # The graph of fp16 is another file, with another constant, and yet the same to an engine
    name = "primitive-fp16"
    before, after = (b.variant("gen_step", name).facts["relu2_ranges"][1]["scale"] for b in (old, new))
    assert after < before
    assert _hashes(old)[old.variant("gen_step", name).file] != _hashes(new)[new.variant("gen_step", name).file]
    # The same as by hand, byte for byte
    by_hand, fresh = tmp_path / "checkpoint", tmp_path / "fresh"
    assert main(["checkpoint", "merge", str(checkpoints["edge"]), str(adapter), "--out", str(by_hand)]) == 0
    export_bundle(Checkpoint.open(by_hand), fresh, ExportOptions(MINI, parse_variants(VARIANTS), "none"))
    assert _hashes(Bundle.open(fresh)) == _hashes(new)


def test_a_framework_checkpoint_s_bundle(
    checkpoints: dict[str, Path], old: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Checkpoint.open(checkpoints["edge"])
    tensors = {f"net_ema.{framework_name(k)}": base.transformer.tensor(k).clone() for k in base.transformer}
    key = f"net_ema.{framework_name(f'{SITE}.weight')}"
    tensors[key] = tensors[key] * 2
    save(dict(tensors), storage_writer=FileSystemWriter(str(tmp_path / "dcp")), no_dist=True)
    command = ["refit", str(old.root), "--weights", str(tmp_path / "dcp"), "--base", str(base.root)]
    assert main([*command, "--out", str(tmp_path / "new"), "--target", TARGET]) == 3
    assert "tensorrt is not installed" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"dcp", "new"}
    new = Bundle.open(tmp_path / "new")
    differing = {n for n, digest in _hashes(new).items() if _hashes(old)[n] != digest}
    # Graphs of fp16 hold the scale of the squared ReLU, which follows from the weights
    assert {name.rpartition("/")[2].partition(".")[0] for name in differing} == {"gen_step"}
    nan = {**tensors, key: torch.full_like(tensors[key], torch.nan)}
    shutil.rmtree(tmp_path / "dcp")
    save(nan, storage_writer=FileSystemWriter(str(tmp_path / "dcp")), no_dist=True)
    assert main([*command, "--out", str(tmp_path / "other"), "--target", TARGET]) == 2
    assert f"not finite: {SITE}.weight" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"dcp", "new"}


def test_another_family_is_refused(
    checkpoints: dict[str, Path], old: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nano = tmp_path / "nano"
    export_bundle(
        Checkpoint.open(checkpoints["nano"]), nano, ExportOptions(MINI, parse_variants("primitive-fp32"), "none")
    )
    assert main(["refit", str(old.root), "--weights", str(nano), "--target", TARGET]) == 2
    assert "another model configuration" in capsys.readouterr().err
