"""The reasoner, and a policy beside it, through real engines. Skipped without a GPU and the engine library.

`MOTEDGE_GPU_REASON_BUNDLE` names a bundle to take, with engines for this GPU where TensorRT is to run it; else a tiny
one is exported. Where there is no pytest, the program is run by itself:

    PYTHONPATH=.:benchmarks:tests/support:$PYTHONPATH $PY39 tests/support/reason_on_gpu.py BUNDLE --engine tensorrt \
        --build --optimization-level 0 --variants primitive17-fp32 --reference REFERENCE.npz
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from motedge.targets.builders.this_gpu import this_compute_capability

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    if given := os.environ.get("MOTEDGE_GPU_REASON_BUNDLE"):
        return Path(given)
    pytest.importorskip("torch")
    from reason_reference import make_bundle

    root: Path = tmp_path_factory.mktemp("reason_gpu") / "bundle"
    make_bundle(root, "primitive-fp32,fused-fp16")
    return root


def _run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reason_on_gpu

    code = reason_on_gpu.main([str(bundle), "--results", str(tmp_path), *options])
    failed = [
        entry
        for path in tmp_path.glob("*_reason_*.json")
        for entry in json.loads(path.read_text())["checks"]
        if not entry["passed"]
    ]
    assert code == 0, json.dumps(failed, indent=1)


@pytest.mark.gpu
@pytest.mark.device
def test_on_onnxruntime(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime without the CUDA provider")
    _run(bundle, tmp_path, monkeypatch, "--variants", "primitive-fp32,fused-fp16")


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.trt
def test_on_tensorrt(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt")
    _run(bundle, tmp_path, monkeypatch, "--engine", "tensorrt", "--build", "--variants", "primitive-fp32")
