"""The programs for a GPU machine, run through on the CPU: whether they work, not what they measure."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import source_cuda
from host_cuda import HostCuda
from kernel_twins import KERNELS
from source_cuda import SourceCuda

from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord

ROOT = Path(__file__).resolve().parents[3]
RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("kernels_gpu")
    monkeypatch.setattr(module, "SHAPES", {"tiny": ((2, 3, 4, 5), (3, 8))})
    monkeypatch.setattr(module, "CAMERAS", {"small": FrameSpec(36, 64, "nv12")})
    monkeypatch.setattr(module, "LARGE_COPY_BYTES", 4096)
    monkeypatch.setattr(module, "COLD_BYTES", 20_000)
    return module


def copy(cuda: Any, grid: Any, block: Any, out: Any, source: Any, count: Any) -> None:
    assert grid[0] * block[0] >= count
    cuda.view(int(out), 16 * int(count), np.uint8)[:] = cuda.view(int(source), 16 * int(count), np.uint8)


def test_the_benchmark_writes_its_figures(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda = HostCuda(kernels={**KERNELS, "copy_float4": copy})
    monkeypatch.setattr(benchmark, "open_cuda", lambda: cuda)
    monkeypatch.setattr(benchmark, "compile_copy", lambda cuda: b"copy")
    monkeypatch.setattr(benchmark, "collect_gpu_conditions", lambda: {"device": "NVIDIA H100 80GB HBM3"})
    monkeypatch.setattr(benchmark.KernelLibrary, "load", lambda cuda: KernelLibrary(cuda, b"", RECORD))
    monkeypatch.setattr(sys, "argv", ["kernels_gpu.py", "--results", str(tmp_path), "--launches", "2", "--rounds", "2"])
    assert benchmark.main() == 0
    result = json.loads((tmp_path / "kernels_h100.json").read_text())
    assert result["schema"] == "motedge.benchmark/v1" and result["conditions"]["toolkit"] == "13.0"
    assert [(row["guided"], row["cache"]) for row in result["solver"]] == [
        (True, "cold"),
        (True, "warm"),
        (False, "cold"),
        (False, "warm"),
    ]
    # x v u c m in, x c m out, 192 elements each
    assert result["solver"][0]["bytes"] == 8 * 4 * 192 and result["solver"][2]["bytes"] == 7 * 4 * 192
    assert len(result["cameras"]) == 2 and "kernels_h100.json" in capsys.readouterr().out


@pytest.mark.skipif(bool(source_cuda.missing()), reason=source_cuda.missing() or "-")
def test_the_check_program_says_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import kernels_on_gpu as program

    cuda = SourceCuda()
    monkeypatch.setattr(program, "open_cuda", lambda: cuda)
    monkeypatch.setattr(program, "open_kernels", lambda cuda: KernelLibrary(cuda, b"", RECORD))
    monkeypatch.setattr(program, "SOLVER_SHAPES", program.SOLVER_SHAPES[:2])
    monkeypatch.setattr(program, "CAMERAS", program.CAMERAS[3:4])
    monkeypatch.setattr(program, "IMAGES", program.IMAGES[1:2])
    monkeypatch.setattr(program, "rgb_of", lambda spec, frame: np.zeros((spec.rows, spec.columns, 3), np.uint8))
    assert program.main() == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    failed = [line["check"].split(":")[0].split()[0] for line in lines if line.get("ok") is False]
    assert failed == ["cameras", "image"] and lines[-1] == {"failed": 2}
    assert len(lines) == 1 + 2 * 3 + 2 + 1 + 1 + 1 + 1
