"""Parts of the TensorRT builder by themselves: progress, inspector, log, the stream to a file."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest
from builder_graphs import make_request
from tensorrt_stub_scene import Stage, inspector_json, make_library

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.log import make_logger, memory_failure
from motedge.targets.builders.trt.build import build_plan
from motedge.targets.builders.trt.inspector import parse_information, raised_in_engine
from motedge.targets.builders.trt.library import describe_library
from motedge.targets.builders.trt.plan import _capsule_bytes
from motedge.targets.builders.trt.progress import PhaseTracker


def test_progress_of_nested_phases() -> None:
    seen: list[tuple[str, float]] = []
    tracker = PhaseTracker(lambda phase, share: seen.append((phase, round(share, 3))))
    tracker.start("all", 2)
    tracker.start("first", 10)
    for step in range(10):
        tracker.step("first", step)
    tracker.finish("first")
    tracker.step("all", 0)
    tracker.start("second", 1)
    # The library may end an outer phase without a word about the inner one
    tracker.finish("all")
    assert seen[0] == ("all", 0.0)
    assert ("first", 0.25) in seen
    assert seen[-1] == ("second", 0.5)
    assert tracker.share() == 0.0
    tracker.step("unknown", 3)
    tracker.finish("unknown")


def test_progress_does_not_report_every_step() -> None:
    seen: list[float] = []
    tracker = PhaseTracker(lambda phase, share: seen.append(share))
    tracker.start("all", 100_000)
    for step in range(100_000):
        tracker.step("all", step)
    assert 90 < len(seen) < 110


@pytest.mark.parametrize("key", ["Bindings", "I/O Tensors"])
def test_inspector_of_both_forms(key: str) -> None:
    layers = parse_information(json.dumps(inspector_json(key)), key)
    assert layers["tensors"] == ["x", "z"]
    assert layers["count"] == 2
    assert layers["detail"][0]["tactic"] == "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n"
    assert layers["detail"][0]["outputs"] == ["fp16"]
    assert [r["layer"] for r in raised_in_engine(layers, "fp16")] == ["layers.0.down_proj/MatMul"]
    assert raised_in_engine(layers, "fp32") == []


def test_inspector_without_details() -> None:
    layers = parse_information('{"Layers": ["a", "b"], "Bindings": ["x"]}', "Bindings")
    assert [layer["name"] for layer in layers["detail"]] == ["a", "b"]
    assert raised_in_engine(layers, "fp16") == []


def test_log(caplog: pytest.LogCaptureFixture) -> None:
    api = make_library("11.4", Stage())
    logger, level = make_logger(api), api.ILogger.Severity
    with caplog.at_level("DEBUG", logger="motedge"):
        logger.log(level.ERROR, "no tactic\n")
        logger.log(level.ERROR, "cudaError 35: CUDA driver version is insufficient for CUDA runtime version")
        logger.log(level.WARNING, "a warning")
        logger.log(level.VERBOSE, "a detail")
    assert logger.errors == ["no tactic"]
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "DEBUG"]
    assert memory_failure(["x", "std::bad_alloc"])
    assert not memory_failure(logger.errors)


def test_bindings_that_give_the_plan_as_a_capsule() -> None:
    """The signature of IStreamWriter.write says (capsule, size), TensorRT-RTX 1.7.1 calls it with bytes."""
    buffer = ctypes.create_string_buffer(b"plan bytes")
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    assert bytes(_capsule_bytes(make(ctypes.addressof(buffer), None, None), 10)) == b"plan bytes"
    assert bytes(_capsule_bytes(b"plan bytes", 10)) == b"plan bytes"


@pytest.mark.parametrize("version", ["10.3", "11.4"])
def test_a_full_disk(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, data: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("motedge.targets.builders.trt.plan.write_chunks", full)
    library = describe_library("tensorrt", make_library(version, Stage()))
    with pytest.raises(HostError, match="the disk is full"):
        build_plan(library, make_request(tmp_path), lambda *step: None, inspect=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gen_step.onnx"]
