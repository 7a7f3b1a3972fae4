"""Bundles with the reasoner's graphs: what is added when they are asked for, what stays, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import ExportError
from motedge.export.job import ExportOptions, ExportReport, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.tables import Tables
from motedge.runtime.verify import verify_bundle

TOLERANCE = 1e-5
GRAPHS = {"und", "vision_encoder"}


def export(checkpoint: Path, out: Path, *extras: str, samples: str = "graphs") -> ExportReport:
    return export_bundle(
        Checkpoint.open(checkpoint), out, ExportOptions(MINI, parse_variants("primitive-fp32"), samples, extras)
    )


@pytest.fixture(scope="module", params=("edge", "nano"))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(family: str, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reasoner") / family
    export(checkpoints[family], out, "reasoner")
    return out


def test_graphs_agree_with_their_samples(bundle: Path) -> None:
    reports = {report.sample: report for report in verify_bundle(Bundle.open(bundle))}
    assert reports.keys() == GRAPHS | {"und_prefill", "gen_step", "vae_encoder", "tick"}
    for name in GRAPHS:
        assert reports[name].passed and all(c.max_abs_error <= TOLERANCE for c in reports[name].comparisons)


def test_host_finds_positions_and_sizes(family: str, bundle: Path, checkpoints: dict[str, Path]) -> None:
    opened, checkpoint = Bundle.open(bundle), Checkpoint.open(checkpoints[family])
    assert checkpoint.vision_config is not None and checkpoint.vision_encoder is not None
    assert opened.manifest.model["vision_config"] == checkpoint.vision_config.to_dict()
    key = next(
        key for key in checkpoint.vision_encoder if key.endswith(("position_embedding.weight", "pos_embed.weight"))
    )
    expected = checkpoint.vision_encoder.finite_tensor(key).float().numpy()
    np.testing.assert_array_equal(Tables.open(opened).vision_positions(), expected)


def test_an_export_without_them_leaves_them(family: str, bundle: Path, checkpoints: dict[str, Path]) -> None:
    before = Bundle.open(bundle).manifest
    assert export(checkpoints[family], bundle, "reasoner").written == []
    assert export(checkpoints[family], bundle).written == []
    assert Bundle.open(bundle).manifest == before
    assert export(checkpoints[family], bundle, samples="none").written == []
    after = Bundle.open(bundle).manifest
    assert (after.graphs, after.tables, after.files, after.model) == (
        before.graphs,
        before.tables,
        before.files,
        before.model,
    )
    assert all(after.samples[name] == before.samples[name] for name in GRAPHS)


def test_no_bundle_has_them_unasked(family: str, bundles: dict[str, Path]) -> None:
    manifest = Bundle.open(bundles[family]).manifest
    assert not GRAPHS & manifest.graphs.keys() and not GRAPHS & manifest.samples.keys()
    assert "vision_positions" not in manifest.tables and "vision_config" not in manifest.model


def test_they_can_be_added_later(
    family: str, checkpoints: dict[str, Path], bundles: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(bundles[family], tmp_path / "bundle")
    written = export(checkpoints[family], tmp_path / "bundle", "reasoner", samples="auto").written
    assert {name.partition("/")[0] for name in written} == {"graphs", "contracts", "tables", "samples"}
    assert all("und." in name or "vision_" in name for name in written), written


def test_a_checkpoint_without_the_vision_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "edge", "edge", "policy-droid")
    shutil.rmtree(checkpoint / "vision_encoder")
    with pytest.raises(ExportError, match="lacks the reasoner's vision encoder"):
        export(checkpoint, tmp_path / "bundle", "reasoner")
    assert not (tmp_path / "bundle").exists()
    assert (
        main(["export", str(checkpoint), "--out", str(tmp_path / "bundle"), "--extras", "reasoner", "--dry-run"]) != 0
    )
    assert "lacks the reasoner's vision encoder" in capsys.readouterr().err
