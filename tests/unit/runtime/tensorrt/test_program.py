"""The program for a GPU with a real TensorRT, on the stub: its checks run through, and can fail."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import refit_graph
import trt_engine_on_gpu
from host_cuda import HostCuda
from tensorrt_runtime_stub import RUNTIME_VERSIONS, make_plan, stage_of, stub_library


class StubMachine:
    """In the place of a real TensorRT."""

    def __init__(self, version: str) -> None:
        self.cuda = HostCuda()
        self.library = stub_library(version, self.cuda)

    def build(self, out: Path) -> None:
        out.write_bytes(make_plan(refit_graph.path("old"), trt_engine_on_gpu.contract()))

    def build_large(self, out: Path) -> None:
        # The stub's large engine is the small graph: only the refusal is looked at
        self.build(out)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        stage_of(self.library).fail["deserialize_cuda_engine"] = "Error Code 2: OutOfMemory"
        yield
        del stage_of(self.library).fail["deserialize_cuda_engine"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_engine_on_gpu, "LARGE", refit_graph.WIDTH)
    monkeypatch.setattr(trt_engine_on_gpu, "RUNS", 3)


def _failed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [entry["check"] for entry in entries if not entry["passed"]]


@pytest.mark.parametrize("version", RUNTIME_VERSIONS)
def test_checks_run_through(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trt_engine_on_gpu.run_checks_of(StubMachine(version), tmp_path)
    # The stub's graph is not the identity that a real machine builds, and garbage is all that it refuses of a plan
    assert set(_failed(capsys)) == {"with room it runs"}


def test_wrong_numbers_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = StubMachine("10.3")
    monkeypatch.setattr(
        machine, "build", lambda out: out.write_bytes(make_plan(refit_graph.path("new"), trt_engine_on_gpu.contract()))
    )
    assert not trt_engine_on_gpu.run_checks_of(machine, tmp_path)
    found = _failed(capsys)
    assert "two contexts on one workspace compute" in found
    assert "so they do when captured" in found
