from __future__ import annotations

from typing import Optional

from motedge.doctor.packages import Package
from motedge.doctor.verdict import Verdict, export_verdict, run_cpu_verdict, run_gpu_verdict


def _package(name: str, version: Optional[str], extra: Optional[str] = None, in_range: bool = True) -> Package:
    return Package(name, version, ">=1, <2", extra, in_range)


def test_export_needs_its_extra() -> None:
    verdict = export_verdict([_package("numpy", "1"), _package("torch", None, "export")], python=(3, 11))
    assert not verdict.possible
    assert verdict.reasons == ("torch is missing",)
    assert verdict.fix == 'pip install "motedge[export]"'


def test_export_needs_a_newer_python() -> None:
    verdict = export_verdict([], python=(3, 9))
    assert not verdict.possible
    assert "Python 3.9 is too old" in verdict.reasons[0]


def test_an_untested_version_is_said_and_allowed() -> None:
    verdict = run_cpu_verdict([_package("numpy", "3", in_range=False)], ["CPUExecutionProvider"], None)
    assert verdict.possible
    assert verdict.reasons == ("numpy 3 is outside the tested range >=1, <2: it may work",)


def test_missing_images_extra_stops_nothing() -> None:
    packages = [_package("numpy", "1"), _package("pillow", None, "images")]
    assert run_cpu_verdict(packages, ["CPUExecutionProvider"], None).possible
    assert export_verdict(packages, python=(3, 11)).possible


def test_onnxruntime_that_can_not_be_imported() -> None:
    verdict = run_cpu_verdict([_package("onnxruntime", "1")], [], "libgomp.so.1: cannot open")
    assert not verdict.possible
    assert "libgomp.so.1" in verdict.reasons[0]
    assert verdict.fix is not None


BINDINGS = {"cuda-bindings": "13.5.0", "pycuda": None}
TENSORRT = {"tensorrt": "10.3.0", "tensorrt_rtx": None}
NONE = {"tensorrt": None, "tensorrt_rtx": None}


def test_gpu_with_all_it_needs() -> None:
    assert run_gpu_verdict(None, BINDINGS, TENSORRT, []) == Verdict("run-gpu", True)
    assert run_gpu_verdict(None, BINDINGS, NONE, ["CUDAExecutionProvider"]).possible


def test_no_gpu() -> None:
    verdict = run_gpu_verdict("nvidia-smi is not installed", BINDINGS, TENSORRT, [])
    assert not verdict.possible
    assert verdict.reasons == ("no GPU: nvidia-smi is not installed",)


def test_nothing_talks_to_the_driver() -> None:
    verdict = run_gpu_verdict(None, {"cuda-bindings": None, "pycuda": None}, TENSORRT, [])
    assert not verdict.possible
    assert verdict.fix == 'pip install "motedge[cuda]"'


def test_no_engine_library() -> None:
    verdict = run_gpu_verdict(None, BINDINGS, NONE, ["CPUExecutionProvider"])
    assert not verdict.possible
    assert "build without CUDA" in verdict.reasons[0]
    assert "TensorRT" in str(verdict.fix)


def test_pycuda_alone_runs_without_graphs() -> None:
    verdict = run_gpu_verdict(None, {"cuda-bindings": None, "pycuda": "2026.1"}, TENSORRT, [])
    assert verdict.possible
    assert "no CUDA graphs" in verdict.reasons[0]
