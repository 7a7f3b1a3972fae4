"""The generator through real engines. Skipped without a GPU and the engine library.

`MOTEDGE_GPU_VIDEO_BUNDLE` names a bundle to take, made by `generate_reference.py bundle OUT`, with engines for this GPU
where TensorRT is to run it; else a tiny one is exported. Where there is no pytest, the program is run by itself:

    PYTHONPATH=.:benchmarks:tests/support:$PYTHONPATH $PY39 tests/support/generate_on_gpu.py BUNDLE --engine tensorrt \
        --build --optimization-level 0 --variants primitive17-fp16 --reference REFERENCE.npz
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_programs import bundle_for_gpu, need_onnxruntime_cuda, run_on_gpu


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        from generate_reference import make_bundle

        make_bundle(root, "primitive-fp32,fused-fp16")

    return bundle_for_gpu("MOTEDGE_GPU_VIDEO_BUNDLE", make, tmp_path_factory.mktemp("generate_gpu"))


@pytest.mark.gpu
@pytest.mark.device
def test_on_onnxruntime(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_onnxruntime_cuda()
    run_on_gpu("generate_on_gpu", bundle, tmp_path, monkeypatch, "--variants", "fused-fp16,primitive-fp32")


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.trt
def test_on_tensorrt(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt")
    options = ("--engine", "tensorrt", "--build", "--variants", "fused-fp16")
    run_on_gpu("generate_on_gpu", bundle, tmp_path, monkeypatch, *options)
