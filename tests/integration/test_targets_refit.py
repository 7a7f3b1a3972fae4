"""From an adapter to refitted engines: merged, exported, and put into the engines of the bundle it started from.

TensorRT itself needs a GPU: its stub takes the file's name and writes a plan (tests/unit/targets/refit).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.targets.refit.agreement import require_same_graph, require_same_model, structure

SITE = "layers.1.mlp_moe_gen.up_proj"


@pytest.fixture(scope="module")
def merged(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("merged")
    outputs, inputs = Checkpoint.open(checkpoints["edge"]).transformer.shape(f"{SITE}.weight")
    seeded = torch.Generator().manual_seed(5)
    factors = {
        f"transformer.{SITE}.lora_A.weight": torch.randn(2, inputs, generator=seeded) * 0.1,
        f"transformer.{SITE}.lora_B.weight": torch.randn(outputs, 2, generator=seeded) * 0.1,
    }
    save_file(factors, str(root / "pytorch_lora_weights.safetensors"))
    assert main(["checkpoint", "merge", str(checkpoints["edge"]), str(root), "--out", str(root / "checkpoint")]) == 0
    return root / "checkpoint"


def test_an_adapter_s_bundle_fits_the_engines_of_the_first(
    full_variants: dict[str, Path], merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_root = tmp_path / "old"
    shutil.copytree(full_variants["edge"], old_root)
    new_root = tmp_path / "new"
    command = ["refit", str(old_root), "--weights", str(merged), "--out", str(new_root), "--target", "h200"]
    # Nothing was built for it: said after the export, which is kept
    assert main(command) == 2
    assert "no engines for 'h200'" in capsys.readouterr().err
    old, new = Bundle.open(old_root), Bundle.open(new_root)
    require_same_model(old, new)
    changed = set()
    for graph, entry in old.manifest.graphs.items():
        for variant in entry.variants:
            model = require_same_graph(old, new, graph, variant)
            assert structure(model) == structure(old.path(old.variant(graph, variant).file))
            for name in new.variant(graph, variant).weights:
                if new.manifest.files[name].sha256 != old.manifest.files[name].sha256:
                    changed.add((graph, name))
    assert {graph for graph, _ in changed} == {"gen_step"}
    assert new.manifest.shape_set == old.manifest.shape_set
    # The same as an export of its own
    shapes = tmp_path / "shapes.toml"
    fields = {k: v for k, v in old.manifest.shape_set.items() if k != "latent"}
    shapes.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in fields.items()))
    fresh_root = tmp_path / "fresh"
    options = ["--variants", "all", "--shape-set", str(shapes), "--samples", "none"]
    assert main(["export", str(merged), "--out", str(fresh_root), *options]) == 0
    fresh = Bundle.open(fresh_root)
    weights = {name: entry.sha256 for name, entry in fresh.manifest.files.items() if entry.role in ("weights", "graph")}
    assert weights == {n: e.sha256 for n, e in new.manifest.files.items() if e.role in ("weights", "graph")}


def test_another_family_is_refused(full_variants: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    edge, nano = (str(full_variants[name]) for name in ("edge", "nano"))
    assert main(["refit", edge, "--weights", nano, "--target", "h200"]) == 2
    assert "another model configuration" in capsys.readouterr().err
