"""The program that checks a policy on a GPU, on a simulated one: all checks pass, and they notice what is wrong."""

from __future__ import annotations

import functools
import hashlib
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from host_cuda import HostCuda
from kernel_twins import KERNELS

import motedge.runtime.backends.onnxruntime_cuda as backend
from motedge.bundle import Bundle
from motedge.files import write_json
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.policy import device_loader

ROOT = Path(__file__).resolve().parents[3]
VARIANT, TRT_VARIANT = "primitive-fp32", "primitive17-fp32"
pytestmark = pytest.mark.slow


class OneGpu(HostCuda):
    """Several contexts on one simulated GPU: they share its memory."""

    open: ClassVar[list[OneGpu]] = []

    def __init__(self) -> None:
        # Room for the tiny policy, whose buffers take 6 MB, and little more
        super().__init__(total_bytes=64 << 20, kernels=KERNELS)
        self.open.append(self)

    def _free_and_total(self) -> tuple[int, int]:
        total = self.facts.total_memory_bytes
        ledgers = [cuda.ledger for cuda in self.open if not cuda.closed]
        return total - sum(n for ledger in ledgers for purpose, n in ledger.items() if purpose != PINNED), total


@pytest.fixture
def bundle(tiny_policy_bundle: Path) -> Path:
    return tiny_policy_bundle


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import policy_checks
    import policy_failures
    import policy_on_gpu
    import policy_reference

    def engine(model: Any, contract: Any, dtype: str, cuda: Any, settings: Any = None, **rest: Any) -> Any:
        provider = Provider("CPUExecutionProvider", "cpu", cuda.enqueue)
        chosen = settings or real.settings(cuda_graph="outer")
        return real.engine(model, contract, dtype, cuda, chosen, **{**rest, "provider": provider, "threads": 1})

    real = SimpleNamespace(engine=backend.OnnxRuntimeCudaEngine, settings=backend.CudaSettings)
    monkeypatch.setattr(backend, "OnnxRuntimeCudaEngine", engine)
    for module in (device_loader, policy_on_gpu, policy_failures):
        monkeypatch.setattr(module, "open_cuda", lambda *args, **kwargs: OneGpu())
    choose = sys.modules["motedge.runtime.cuda.choose"]
    monkeypatch.setattr(choose, "open_cuda", lambda *args, **kwargs: OneGpu())
    OneGpu.open.clear()
    yield SimpleNamespace(
        main=policy_on_gpu, checks=policy_checks, failures=policy_failures, reference=policy_reference
    )


def make_bench(program: Any, bundle: Path, ticks: int = 60) -> Any:
    args = SimpleNamespace(bundle=bundle, engine="onnxruntime-cuda", ticks=ticks, optimization_level=None)
    return program.main.Bench(args, VARIANT, program.reference.make_reference(bundle))


def failed(bench: Any) -> list[str]:
    return [entry["check"] for entry in bench.found if not entry["passed"]]


def test_all_checks_pass_on_a_simulated_gpu(program: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = make_bench(program, bundle)
    for check in (*program.checks.CHECKS, *program.failures.CHECKS):
        bench.run(check)
    # A simulated GPU's clock counts what was enqueued, so that its time is no share of the host's
    assert set(failed(bench)) <= {"time outside the engines"}, capsys.readouterr().out
    assert len(bench.found) > 30


def test_wrong_actions_are_noticed(program: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(program, bundle)
    monkeypatch.setattr(bench, "load", functools.partial(bench.load, shift=4.0))
    bench.run(program.checks.check_agreement)
    assert "as on the CPU: always" in failed(bench)


def test_a_leak_is_noticed(program: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, kept = make_bench(program, bundle, ticks=3), []
    act = program.checks.act

    def leaking(policy: Any, scene: Any) -> Any:
        cuda = program.checks.tick_of(policy)._cuda
        with cuda.current():
            kept.append(cuda.allocate(4096, "leaked"))
        return act(policy, scene)

    monkeypatch.setattr(program.checks, "act", leaking)
    bench.run(program.checks.check_growth)
    assert failed(bench) == ["many ticks, no growth"]


def test_a_leak_of_the_host_is_noticed(program: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, kept = make_bench(program, bundle, ticks=3), []
    act = program.checks.act

    def leaking(policy: Any, scene: Any) -> Any:
        # Pages of its own: an allocator may have 16 MiB that it was given back and kept
        kept.append(mmap.mmap(-1, 16 << 20))
        kept[-1].write(bytes(16 << 20))
        return act(policy, scene)

    monkeypatch.setattr(program.checks, "act", leaking)
    monkeypatch.setattr(program.checks, "WARM_TICKS", 1)
    bench.run(program.checks.check_growth)
    assert failed(bench) == ["many ticks, no growth"]


def test_a_check_that_breaks_is_a_finding(program: Any, bundle: Path) -> None:
    bench = make_bench(program, bundle)

    def check_nothing(bench: Any) -> None:
        raise RuntimeError("out of order")

    bench.run(check_nothing)
    assert failed(bench) == ["check_nothing"]
    assert "out of order" in bench.found[0]["error"]


def test_the_benchmarks_account_of_memory(
    program: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gpu_growth
    import gpu_scene

    monkeypatch.setattr(gpu_growth, "open_cuda", lambda: OneGpu())
    monkeypatch.setattr(gpu_growth, "MOST_TICKS", 40)
    scene = gpu_scene.GpuScene(Bundle.open(bundle), VARIANT, "cuda", "tiny", 1)
    report = gpu_scene.Report(tmp_path / "found.json")
    gpu_growth.run(scene, report)
    found = gpu_scene.Report.read(report.path)
    assert found["growth"]["ticks"] == 40
    assert found["growth"]["device_growth_bytes"] == 0
    assert found["not_given_back_bytes"] == 0
    # Nobody else is on a simulated GPU
    assert found["memory"]["not_accounted_bytes"] == 0
    assert found["memory"]["accounted_bytes"] > 5_000_000


@pytest.fixture
def engines_of_86(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle with engines as TensorRT 8.6 would build them, which compute in onnxruntime."""
    import shutil

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
        # Of the first bundle: a copy with damaged plans runs what it names all the same
        plan = make_plan(bundle / opened.variant(graph, variant).file, opened.contract(graph))
        name = f"{graph}.{variant}.engine"
        (folder / name).write_bytes(plan)
        facts: dict[str, Any] = dict.fromkeys(("seconds", "peak_memory_bytes", "device_memory_bytes"), 1)
        facts.update(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest(), source="0" * 64, settings={})
        facts.update(builder="tensorrt", builder_version=stub_library("8.6", OneGpu()).version)
        facts.update(compute_capabilities=("9.0",), platform=this_platform(), created="2026-11-01T00:00:00+00:00")
        files = files.with_engine(EngineFile(graph, variant, name, peak_anonymous_bytes=None, **facts))
    write_json(folder / BUILD_FILE, files.to_dict())

    def found(*args: Any) -> Any:
        return stub_library("8.6", next(cuda for cuda in reversed(OneGpu.open) if not cuda.closed))

    monkeypatch.setattr(find, "find_library", found)
    return copy


def test_all_checks_pass_on_engines_of_tensorrt_8_6(
    program: Any, engines_of_86: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(program, engines_of_86)
    bench.engine, bench.variant = "tensorrt", TRT_VARIANT
    for check in (*program.checks.CHECKS, *program.failures.CHECKS):
        bench.run(check)
    assert set(failed(bench)) <= {"time outside the engines"}, capsys.readouterr().out
    launches = next(entry for entry in bench.found if entry["check"] == "it says how work is launched")["launches"]
    assert "True: 'one CUDA graph" in launches
