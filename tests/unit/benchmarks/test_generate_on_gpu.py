"""The program that checks the generator on a GPU, on a simulated one: all checks pass, and errors are noticed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from host_cuda import HostCuda

import motedge.runtime.backends.onnxruntime_cuda as backend
from motedge.bundle import Bundle
from motedge.files import write_json
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.generate import device_parts

ROOT = Path(__file__).resolve().parents[3]
VARIANT, TRT_VARIANT = "primitive-fp32", "primitive17-fp32"
pytestmark = pytest.mark.slow


class OneGpu(HostCuda):
    """Several contexts on one simulated GPU: they share its memory."""

    open: ClassVar[list[OneGpu]] = []

    def __init__(self) -> None:
        super().__init__(total_bytes=1 << 30)
        self.open.append(self)

    def _free_and_total(self) -> tuple[int, int]:
        total = self.facts.total_memory_bytes
        ledgers = [cuda.ledger for cuda in self.open if not cuda.closed]
        return total - sum(n for ledger in ledgers for purpose, n in ledger.items() if purpose != PINNED), total


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("MOTEDGE_GPU_VIDEO_BUNDLE"):
        return Path(given)
    import generate_reference

    root: Path = tmp_path_factory.mktemp("tiny-video") / "bundle"
    generate_reference.make_bundle(root, f"{VARIANT},{TRT_VARIANT}")
    return root


@pytest.fixture(scope="module")
def reference(bundle: Path) -> dict[str, Any]:
    import generate_reference

    return generate_reference.make_reference(bundle)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import generate_checks
    import generate_on_gpu
    import policy_failures
    import policy_on_gpu

    def engine(model: Any, contract: Any, dtype: str, cuda: Any, settings: Any = None, **rest: Any) -> Any:
        provider = Provider("CPUExecutionProvider", "cpu", cuda.enqueue)
        return real(model, contract, dtype, cuda, settings, **{**rest, "provider": provider, "threads": 1})

    real = backend.OnnxRuntimeCudaEngine
    monkeypatch.setattr(backend, "OnnxRuntimeCudaEngine", engine)
    choose = sys.modules["motedge.runtime.cuda.choose"]
    for module in (device_parts, policy_on_gpu, policy_failures, choose):
        monkeypatch.setattr(module, "open_cuda", lambda *args, **kwargs: OneGpu())
    OneGpu.open.clear()
    yield SimpleNamespace(main=generate_on_gpu, checks=generate_checks)


def make_bench(program: Any, bundle: Path, reference: Any, engine: str = "onnxruntime-cuda") -> Any:
    args = SimpleNamespace(bundle=bundle, engine=engine, ticks=0, rounds=3, optimization_level=None)
    return program.main.Bench(args, VARIANT if engine == "onnxruntime-cuda" else TRT_VARIANT, reference)


def failed(bench: Any) -> list[str]:
    return [entry["check"] for entry in bench.found if not entry["passed"]]


def test_all_checks_pass_on_onnxruntime(
    program: Any, bundle: Path, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(program, bundle, reference)
    for check in program.checks.CHECKS:
        bench.run(check)
    assert not failed(bench), capsys.readouterr().out
    assert len(bench.found) > 60


def test_wrong_latents_are_noticed(program: Any, bundle: Path, reference: Any, monkeypatch: Any) -> None:
    wrong = {name: value + np.float32(0.05) if "latents" in name else value for name, value in reference.items()}
    bench = make_bench(program, bundle, wrong)
    bench.run(program.checks.check_agreement)
    assert {"as on the CPU: a video", "as on the CPU: sound"} <= set(failed(bench))


@pytest.fixture
def engines_of_86(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle with engines as TensorRT 8.6 would build them, which compute in onnxruntime."""
    from tensorrt_runtime_stub import make_plan, stub_library

    from motedge.runtime.backends.tensorrt import find
    from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
    from motedge.runtime.engine_files.gate import this_platform

    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    opened, folder = Bundle.open(copy), copy / "engines" / "h100"
    folder.mkdir(parents=True)
    files = EngineFiles(folder, "h100", ())
    for graph in opened.manifest.graphs:
        variant = "primitive-fp32" if graph == "solver_step" else TRT_VARIANT
        plan = make_plan(bundle / opened.variant(graph, variant).file, opened.contract(graph))
        name = f"{graph}.{variant}.engine"
        (folder / name).write_bytes(plan)
        facts: dict[str, Any] = dict.fromkeys(("seconds", "peak_memory_bytes", "device_memory_bytes"), 1)
        facts.update(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest(), source="0" * 64, settings={})
        facts.update(builder="tensorrt", builder_version=stub_library("8.6", OneGpu()).version)
        facts.update(compute_capabilities=("9.0",), platform=this_platform(), created="2026-11-01T00:00:00+00:00")
        files = files.with_engine(EngineFile(graph, variant, name, peak_anonymous_bytes=None, **facts))
    write_json(folder / BUILD_FILE, files.to_dict())
    libraries: dict[OneGpu, Any] = {}

    def found(*args: Any) -> Any:
        cuda = next(cuda for cuda in reversed(OneGpu.open) if not cuda.closed)
        return libraries.setdefault(cuda, stub_library("8.6", cuda))

    monkeypatch.setattr(find, "find_library", found)
    return copy


def test_all_checks_pass_on_engines_of_tensorrt_8_6(
    program: Any, engines_of_86: Path, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(program, engines_of_86, reference, "tensorrt")
    for check in program.checks.CHECKS:
        bench.run(check)
    assert not failed(bench), capsys.readouterr().out
    launched = {entry["check"]: entry["passed"] for entry in bench.found if entry["check"].startswith("launched as")}
    assert len(launched) == 18
