"""The reasoner's graphs through plan, build and pack: with the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tensorrt_rtx_build import CAPABILITIES, build_engine
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.engine_files import EngineFiles

GRAPHS = ("und", "vision_encoder")
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module", params=("edge", "nano"))
def bundle(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path_factory: Any) -> Path:
    root = Path(tmp_path_factory.mktemp("reasoner-build") / request.param)
    options = ExportOptions(MINI, parse_variants("fused-bf16"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoints[request.param]), root, options)
    return root


@pytest.mark.capability(mode="reason_image", family="{bundle}", backend="tensorrt-rtx", proof="built")
@needs_rtx
def test_plan_and_build(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(bundle), "--target", "rtx-5090", "--json"]) in (0, 1)
    planned = json.loads(capsys.readouterr().out)
    assert set(GRAPHS) <= {graph["graph"] for graph in planned["graphs"]}
    items = {item["name"]: item["bytes"] for item in planned["memory"]["items"]}
    # What the runtime asks for: not 64 images of 4096 tokens each at once, which the ranges allow
    assert 0 < items["the reasoner's activations"] < 100e6 and items["input and output buffers"] < 200e6
    assert main(["build", str(bundle), "--target", "rtx-5090", "--graphs", ",".join(GRAPHS), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [entry["graph"] for entry in report["engines"]] == list(GRAPHS)
    assert all(entry["raised_precision"] == [] for entry in report["engines"])
    files = EngineFiles.open(Bundle.open(bundle), "rtx-5090")
    for graph in GRAPHS:
        assert files.find(graph).bytes > _weight_bytes(bundle, graph)


@needs_rtx
@pytest.mark.parametrize("graph", GRAPHS)
def test_for_every_capability(bundle: Path, graph: str) -> None:
    opened = Bundle.open(bundle)
    model = opened.path(opened.variant(graph, "fused-bf16").file)
    size, built = build_engine(model, opened.contract(graph), *CAPABILITIES, dtype="bf16")
    assert size > _weight_bytes(bundle, graph)
    assert not built.raised_precision


@needs_rtx
@pytest.mark.slow
def test_packed_and_installed(bundle: Path, tmp_path: Path) -> None:
    assert main(["build", str(bundle), "--target", "rtx-5090"]) == 0
    archive, root = tmp_path / "b.tar", tmp_path / "device"
    assert main(["pack", str(bundle), "--target", "rtx-5090", "--no-wheel", "--out", str(archive)]) == 0
    assert main(["install", str(archive), "--root", str(root), "--any-device"]) == 0
    packed = Bundle.open(root / "current")
    assert set(GRAPHS) <= set(packed.manifest.graphs) and "vision_positions" in packed.manifest.tables
    files = EngineFiles.open(packed, "rtx-5090")
    assert all((files.folder / files.find(graph).file).is_file() for graph in GRAPHS)


def _weight_bytes(bundle: Path, graph: str) -> int:
    opened = Bundle.open(bundle)
    return sum(opened.manifest.files[name].bytes for name in opened.variant(graph, "fused-bf16").weights)
