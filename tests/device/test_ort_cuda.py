"""onnxruntime's CUDA provider on a real GPU. Skipped without a GPU and onnxruntime-gpu.

MOTEDGE_ORT_CUDA_BUNDLE names the bundle to run; `tests/support/ort_cuda_bundle.py OUT` writes one. Where there is no
pytest, the program is run by itself: see `tests/support/ort_cuda_on_gpu.py`.
"""

from __future__ import annotations

import os

import pytest
from gpu_programs import need_onnxruntime_cuda

from motedge.targets.builders.this_gpu import this_compute_capability

BUNDLE = "MOTEDGE_ORT_CUDA_BUNDLE"


@pytest.mark.gpu
@pytest.mark.device
def test_engines_on_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    need_onnxruntime_cuda()
    if BUNDLE not in os.environ:
        pytest.skip(f"{BUNDLE} names no bundle")
    import ort_cuda_on_gpu

    assert ort_cuda_on_gpu.main([os.environ[BUNDLE]]) == 0, capsys.readouterr().out
