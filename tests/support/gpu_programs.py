"""Runs a program of tests/support that checks a bundle on a GPU, from a test of tests/device."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.targets.builders.this_gpu import this_compute_capability

ROOT = Path(__file__).resolve().parents[2]


def bundle_for_gpu(variable: str, make: Callable[[Path], None], folder: Path) -> Path:
    """The bundle that environment `variable` names, else the one that `make` writes into `folder`.

    Skips the test where there is no GPU, or no torch to export one.
    """
    if this_compute_capability() is None:
        pytest.skip("no GPU that CUDA can use")
    if given := os.environ.get(variable):
        return Path(given)
    pytest.importorskip("torch")
    root = folder / "bundle"
    make(root)
    return root


def run_on_gpu(program: str, bundle: Path, results: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Runs `program`, `policy_on_gpu` for one, and shows what did not pass."""
    # Children that a program starts find the same modules
    folders = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    code = importlib.import_module(program).main([str(bundle), "--results", str(results), *options])
    checks = [entry for path in results.glob("*.json") for entry in json.loads(path.read_text())["checks"]]
    assert code == 0, json.dumps([entry for entry in checks if not entry["passed"]], indent=1)


def need_onnxruntime_cuda() -> None:
    """Skips the test where onnxruntime has no CUDA provider."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime without the CUDA provider")
