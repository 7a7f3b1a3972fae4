"""The reasoner, and a policy beside it, through real engines. Skipped without a GPU and the engine library.

`MOTEDGE_GPU_REASON_BUNDLE` names a bundle to take, with engines for this GPU where TensorRT is to run it; else a tiny
one is exported. Where there is no pytest, the program is run by itself:

    PYTHONPATH=.:benchmarks:tests/support:$PYTHONPATH $PY39 tests/support/reason_on_gpu.py BUNDLE --engine tensorrt \
        --build --optimization-level 0 --variants primitive17-fp32 --reference REFERENCE.npz
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_programs import bundle_for_gpu, need_onnxruntime_cuda, run_on_gpu


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        from reason_reference import make_bundle

        make_bundle(root, "primitive-fp32,fused-fp16")

    return bundle_for_gpu("MOTEDGE_GPU_REASON_BUNDLE", make, tmp_path_factory.mktemp("reason_gpu"))


@pytest.mark.gpu
@pytest.mark.device
def test_on_onnxruntime(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_onnxruntime_cuda()
    run_on_gpu("reason_on_gpu", bundle, tmp_path, monkeypatch, "--variants", "primitive-fp32,fused-fp16")


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.trt
def test_on_tensorrt(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt")
    options = ("--engine", "tensorrt", "--build", "--variants", "primitive-fp32")
    run_on_gpu("reason_on_gpu", bundle, tmp_path, monkeypatch, *options)
