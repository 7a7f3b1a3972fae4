"""Tiny checkpoints and bundles that the integration tests share. Random weights: they prove paths, not quality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from quant_scene import QuantScene, export_policy
from tiny import FAMILIES, MINI, MINI_POLICY

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import load_shape_set
from motedge.export.variants import parse_variants


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny policy checkpoint a family."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(root / name, name, "policy-droid", "tiny", seed=7) for name in FAMILIES}


@pytest.fixture(scope="session")
def bundles(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One fp32 bundle a family, mini shapes, with samples."""
    root = tmp_path_factory.mktemp("bundles")
    for name, checkpoint in checkpoints.items():
        options = ExportOptions(MINI, parse_variants("primitive-fp32"))
        export_bundle(Checkpoint.open(checkpoint), root / name, options)
    return {name: root / name for name in checkpoints}


@pytest.fixture(scope="session")
def full_variants(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle with every variant, of Edge and of Nano, mini shapes, graph samples only."""
    root = tmp_path_factory.mktemp("variants")
    for name in ("edge", "nano"):
        export_bundle(
            Checkpoint.open(checkpoints[name]), root / name, ExportOptions(MINI, parse_variants("all"), "graphs")
        )
    return {name: root / name for name in ("edge", "nano")}


@pytest.fixture(scope="session")
def reasoned_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edge's policy and its reasoner, mini shapes, no samples: it acts, answers, and makes images besides."""
    root = tmp_path_factory.mktemp("reasoned")
    checkpoint, out = make_checkpoint(root / "checkpoint", "edge", "policy-droid", "tiny", seed=7), root / "bundle"
    # With and without actions, from one image on
    shapes = dataclasses.replace(MINI_POLICY, min_latent_frames=1, min_actions=0)
    options = ExportOptions(shapes, parse_variants("primitive-fp32"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoint), out, options)
    return out


@pytest.fixture(scope="session")
def road_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed small checkpoint, a vehicle's that drives, in fp32 with samples."""
    out, examples = tmp_path_factory.mktemp("road") / "bundle", Path(__file__).resolve().parents[2] / "examples"
    shapes = load_shape_set(str(examples / "train_small" / "shapes.toml"))
    checkpoint = Checkpoint.open(examples / "small_road")
    export_bundle(checkpoint, out, ExportOptions(shapes, parse_variants("primitive-fp32")))
    return out


class QuantScenes(dict[str, QuantScene]):
    """Scenes by family, each made when first asked for."""

    def __init__(self, checkpoints: dict[str, Path], root: Path) -> None:
        self._checkpoints, self._root = checkpoints, root

    def __missing__(self, family: str) -> QuantScene:
        self[family] = QuantScene.of(export_policy(self._checkpoints[family], self._root / family))
        return self[family]


@pytest.fixture(scope="session")
def quant_scenes(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> QuantScenes:
    """A bundle a family with every variant, on which a policy acts, and real forwards of its towers."""
    return QuantScenes(checkpoints, tmp_path_factory.mktemp("quant"))
