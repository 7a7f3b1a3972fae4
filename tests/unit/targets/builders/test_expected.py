"""What a build is expected to take, against the builds that were measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from builder_graphs import make_bundle
from onnx import TensorProto, helper

from motedge.bundle import Bundle, FileEntry
from motedge.targets.builders.expected import FP4_COPIES, PROCESS_BYTES, WEIGHT_COPIES, expect_build
from motedge.targets.builders.selection import Choice

RESULTS = Path(__file__).resolve().parents[4] / "benchmarks/results/engine_build.json"
GB = 1_000_000_000


def _rows() -> list[dict[str, Any]]:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["way"] == "ours"]


@pytest.mark.parametrize("row", _rows(), ids=lambda row: f"{row['graph']}-{row['variant']}")
def test_measured_builds_were_foreseen(row: dict[str, Any]) -> None:
    """Within 15 %, in size and in peak memory."""
    assert abs(row["expected_peak_gb"] / row["peak_rss_gb"] - 1) < 0.15
    assert abs(row["expected_engine_gb"] / row["engine_gb"] - 1) < 0.15
    if "nvfp4" not in row["variant"] and "mixed" not in row["variant"]:
        # What was recorded is what the constants of today give
        expected = PROCESS_BYTES + WEIGHT_COPIES * row["weights_gb"] * GB
        assert row["expected_peak_gb"] * GB == pytest.approx(expected, rel=1e-6)
        assert row["peak_over_weights"] < 2


def _bundle(tmp_path: Path, variant: str, weights: int) -> tuple[Bundle, Choice]:
    bundle = make_bundle(tmp_path / variant, (variant,))
    entry = dataclasses.replace(bundle.variant("gen_step", variant), weights=("graphs/weights/w.data",))
    files = {**bundle.manifest.files, "graphs/weights/w.data": FileEntry("0" * 64, weights, "weights")}
    bundle = Bundle(bundle.root, dataclasses.replace(bundle.manifest, files=files))
    return bundle, Choice("gen_step", variant, entry)


def test_by_version(tmp_path: Path) -> None:
    bundle, choice = _bundle(tmp_path, "primitive-fp16", GB)
    new = expect_build(bundle, choice, "tensorrt", "10.13.3.9")
    assert new == expect_build(bundle, choice, "tensorrt-rtx", "1.7.1.116")
    assert new.peak_bytes == PROCESS_BYTES + int(WEIGHT_COPIES * GB)
    assert GB < new.engine_bytes < 1.05 * GB
    # The parser of 10.3 reads external data into memory, its builder holds the plan
    assert expect_build(bundle, choice, "tensorrt", "10.3.0.30").peak_bytes > 2 * new.peak_bytes


def test_fp4_weights_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, choice = _bundle(tmp_path, "fused-fp16-nvfp4", GB)
    path = bundle.path(choice.entry.file)
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("w4", TensorProto.FLOAT4E2M1, [0, 8], []))
    packed = model.graph.initializer[-1]
    packed.dims[:] = [100_000, 10_000]
    onnx.save(model, path)
    expected = PROCESS_BYTES + WEIGHT_COPIES * GB / 2 + FP4_COPIES * GB / 2
    assert expect_build(bundle, choice, "tensorrt-rtx", "1.7.1").peak_bytes == pytest.approx(expected, rel=1e-6)
    # Without the onnx package all weights count as FP4: the cautious side
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert expect_build(bundle, choice, "tensorrt-rtx", "1.7.1").peak_bytes == PROCESS_BYTES + int(FP4_COPIES * GB)
