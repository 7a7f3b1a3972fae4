"""The program for a real GPU does what it says, as far as a CPU can tell: it is run once, where time is short."""

from __future__ import annotations

import json

import ort_cuda_on_gpu
import pytest


@pytest.fixture
def small(onnx_bundle, monkeypatch):
    """The subprocess finds this package and the tests' support."""
    monkeypatch.setenv("PYTHONPATH", str(ort_cuda_on_gpu.Path(ort_cuda_on_gpu.__file__).parent))
    return onnx_bundle


def test_every_check_runs_through(small, tmp_path, capfd) -> None:
    out = tmp_path / "found.json"
    names = ["facts", "agrees", "own", "outer", "asynchronous"]
    code = ort_cuda_on_gpu.main([str(small), "--simulate", "--out", str(out), "--only", *names])
    found = json.loads(out.read_text())["findings"]
    assert code == 0, [entry for entry in found if not entry["passed"]]
    said = {entry["check"] for entry in found}
    assert {"outer: captured", "agrees gen_step primitive-fp32 own", "asynchronous: off, another stream"} <= said


def test_a_check_that_dies_is_a_finding(tmp_path, capfd) -> None:
    assert ort_cuda_on_gpu.main([str(tmp_path / "none"), "--simulate", "--only", "facts"]) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert any(not line["passed"] for line in lines)
