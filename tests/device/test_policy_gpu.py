"""A policy's ticks through real engines. Skipped without a GPU and the engine library.

`MOTEDGE_GPU_BUNDLE` names a bundle to take, with engines for this GPU where TensorRT is to run it; else a tiny one is
exported. Where there is no pytest, as in the kit with TensorRT 8.6 for Python 3.9, the program is run by itself:

    PYTHONPATH=.:benchmarks:tests/support:$PYTHONPATH $PY39 tests/support/policy_on_gpu.py BUNDLE --engine tensorrt \
        --build --variants primitive17-fp16 --reference REFERENCE.npz
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_programs import bundle_for_gpu, need_onnxruntime_cuda, run_on_gpu

# Short: the program by itself runs 1,000
TICKS = ("--ticks", "200")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_for_gpu("MOTEDGE_GPU_BUNDLE", _make, tmp_path_factory.mktemp("policy_gpu"))


def _make(root: Path) -> None:
    from tiny import MINI_POLICY

    from motedge.checkpoint.make import make_checkpoint
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.variants import parse_variants

    checkpoint = make_checkpoint(root.with_name("checkpoint"), "edge", "policy-droid", "tiny", seed=7)
    options = ExportOptions(MINI_POLICY, parse_variants("primitive-fp32,fused-fp16"), samples="none")
    export_bundle(Checkpoint.open(checkpoint), root, options)


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.parametrize("variant", ["primitive-fp32", "fused-fp16"])
def test_onnxruntime(bundle: Path, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_onnxruntime_cuda()
    options = ("--engine", "onnxruntime-cuda", "--variants", variant, *TICKS)
    run_on_gpu("policy_on_gpu", bundle, tmp_path, monkeypatch, *options)


@pytest.mark.trt
@pytest.mark.gpu
@pytest.mark.device
def test_tensorrt(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt")
    options = ("--engine", "tensorrt", "--build", "--variants", "primitive-fp32", *TICKS)
    run_on_gpu("policy_on_gpu", bundle, tmp_path, monkeypatch, *options)
