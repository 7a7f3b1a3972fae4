"""A policy's ticks through real engines. Skipped without a GPU and the engine library.

`MOTEDGE_GPU_BUNDLE` names a bundle to take, with engines for this GPU where TensorRT is to run it; else a tiny one is
exported. Where there is no pytest, as in the kit with TensorRT 8.6 for Python 3.9, the program is run by itself:

    PYTHONPATH=.:benchmarks:tests/support:$PYTHONPATH $PY39 tests/support/policy_on_gpu.py BUNDLE --engine tensorrt \
        --build --variants primitive17-fp16 --reference REFERENCE.npz
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from motedge.targets.builders.this_gpu import this_compute_capability

ROOT = Path(__file__).resolve().parents[2]
# Short: the program by itself runs 1,000
TICKS = 200


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    if given := os.environ.get("MOTEDGE_GPU_BUNDLE"):
        return Path(given)
    pytest.importorskip("torch")
    from tiny import MINI_POLICY

    from motedge.checkpoint.make import make_checkpoint
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.variants import parse_variants

    root = tmp_path_factory.mktemp("policy_gpu")
    make_checkpoint(root / "checkpoint", "edge", "policy-droid", "tiny", seed=7)
    options = ExportOptions(MINI_POLICY, parse_variants("primitive-fp32,fused-fp16"), samples="none")
    export_bundle(Checkpoint.open(root / "checkpoint"), root / "bundle", options)
    return root / "bundle"


def _run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    # Its last check runs in a child
    folders = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
    import policy_on_gpu

    code = policy_on_gpu.main([str(bundle), "--results", str(tmp_path), "--ticks", str(TICKS), *options])
    failed = [
        entry
        for path in tmp_path.glob("*_policy_*.json")
        for entry in json.loads(path.read_text())["checks"]
        if not entry["passed"]
    ]
    assert code == 0, json.dumps(failed, indent=1)


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.parametrize("variant", ["primitive-fp32", "fused-fp16"])
def test_onnxruntime(bundle: Path, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime without the CUDA provider")
    _run(bundle, tmp_path, monkeypatch, "--engine", "onnxruntime-cuda", "--variants", variant)


@pytest.mark.trt
@pytest.mark.gpu
@pytest.mark.device
def test_tensorrt(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt")
    _run(bundle, tmp_path, monkeypatch, "--engine", "tensorrt", "--build", "--variants", "primitive-fp32")
