"""The measurements on a GPU, on small models and a simulated one: what they compute, what they say on failure."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from host_cuda import HostCuda

from motedge.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Imports a module of benchmarks/, whose scripts see one another as a script does."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def scene(load: Any, tiny_policy_bundle: Path) -> Any:
    return load("gpu_scene").GpuScene(Bundle.open(tiny_policy_bundle), "fused-fp16", "cpu", "tiny", 1)


@pytest.fixture
def report(load: Any, tmp_path: Path) -> Any:
    return load("gpu_scene").Report(tmp_path / "found.json")


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch, load: Any) -> ModuleType:
    """gpu_steps with engines of onnxruntime's CPU provider on a simulated GPU."""
    from motedge.runtime.backends.onnxruntime_cuda import CudaSettings, OnnxRuntimeCudaEngine
    from motedge.runtime.backends.onnxruntime_cuda.provider import Provider

    steps, cuda = load("gpu_steps"), HostCuda()
    provider = Provider("CPUExecutionProvider", "cpu", cuda.enqueue)

    def make_engine(scene: Any, device: Any, stream: Any, mode: str) -> OnnxRuntimeCudaEngine:
        contract, entry = scene.bundle.contract("gen_step"), scene.bundle.variant("gen_step", scene.variant)
        return OnnxRuntimeCudaEngine(
            scene.model_path("gen_step"),
            contract,
            entry.dtype,
            device,
            CudaSettings(cuda_graph=mode),
            stream=stream,
            threads=1,
            provider=provider,
        )

    monkeypatch.setattr(steps, "open_cuda", lambda: cuda)
    monkeypatch.setattr(steps, "make_engine", make_engine)
    return steps


@pytest.mark.slow
def test_steps_of_every_mode_agree_with_torch(on_host: Any, scene: Any, report: Any) -> None:
    on_host.run(scene, report)
    found = json.loads(report.path.read_text())
    modes = [f"onnxruntime fused-fp16 {mode}" for mode in ("own", "outer", "off")]
    assert set(modes) < set(found["ways"])
    assert all(found["parity"]["same_maths"][name] for name in modes)
    assert 0 < found["parity"]["relative_l2_to_fp32"]["torch eager fp16"]["vision_velocity"] < 0.01


@pytest.mark.slow
def test_a_step_of_other_weights_is_noticed(on_host: Any, scene: Any, report: Any, monkeypatch: Any) -> None:
    copy = on_host.OrtStep._hold

    def wrong(self: Any, contract: Any, dtype: str, inputs: Any, device: str) -> None:
        copy(self, contract, dtype, {**inputs, "t": inputs["t"] - 500}, device)

    monkeypatch.setattr(on_host.OrtStep, "_hold", wrong)
    on_host.run(scene, report)
    assert not any(report.values["parity"]["same_maths"].values())


@pytest.mark.slow
def test_torchs_tick_is_ours(load: Any, scene: Any) -> None:
    """PyTorch's tick in fp32 against the numpy loop on the fp32 graphs: the peer really does the same."""
    from motedge.runtime.policy import load_policy

    ticks, modules = load("gpu_ticks"), load("gpu_modules")
    policy = load_policy(scene.bundle.root, variant="primitive-fp32", threads=1, check="size")
    with policy, modules.torch_operators(), ticks.torch_tick(scene, "fp32") as peer:
        for settings in (scene.settings, scene.always):
            theirs = peer.act(scene.observation, settings, 3)
            ours = policy.act(scene.observation, seed=3, settings=settings).actions
            # The torch module computes from fp16 weights, the graph from fp32 ones
            assert load("gpu_timing").relative_l2(theirs, ours) < 1e-3


def test_step_work_is_counted(load: Any) -> None:
    """11.0 TFLOP at the DROID policy's shapes, as counted by hand."""
    sizes = {
        "tokens": 3093,
        "und_len": 158,
        "hidden": 2048,
        "inner": 9216,
        "heads": 16,
        "kv_heads": 8,
        "head": 128,
        "layers": 28,
    }
    flop = load("gpu_roofline").step_flop(sizes)
    assert flop["total"] == pytest.approx(11.0e12, rel=0.01)
    layer = 2048 * (2048 + 2 * 1024) + 2048 * 2048 + 2 * 2048 * 9216
    assert flop["products"] == 28 * 2 * 3093 * layer


def test_the_account_of_a_trace(load: Any) -> None:
    def event(name: str, category: str, start: float, took: float) -> dict[str, Any]:
        return {"name": name, "cat": category, "ts": start, "dur": took}

    trace = load("gpu_trace")
    events = [
        event(trace.MARK, "user_annotation", 100, 1000),
        event("upload", "gpu_memcpy", 150, 50),
        # Within the threshold, then overlapping, then after a gap of 100
        event("a", "kernel", 204, 96),
        event("b", "kernel", 250, 150),
        event("c", "kernel", 500, 500),
        event("of nobody", "kernel", 5000, 10),
        event("on the host", "cpu_op", 100, 900),
    ]
    found = trace.account(events)
    assert found["ticks"] == 1
    assert found["busy_us"] == 50 + 196 + 500
    assert (found["before_first_us"], found["after_last_us"]) == (50, 100)
    assert found["gaps"] == 1
    assert found["gaps_us"] == 100
    assert found["idle_between_us"] == 104
    assert found["outside_us"] == 254
    assert found["longest_gaps"] == [{"us": 100, "after": "b", "before": "c"}]
    assert trace.longest(events)[0] == {"name": "c", "us": 500, "count": 1}


def test_a_trace_without_a_gpu_says_so(load: Any) -> None:
    trace = load("gpu_trace")
    assert "no work" in trace.account([{"name": trace.MARK, "cat": "user_annotation", "ts": 0, "dur": 5}])["failed"]


def test_a_section_that_hangs_or_breaks_is_recorded(load: Any, tmp_path: Path) -> None:
    program = load("gpu_tick")
    args = SimpleNamespace(bundle=tmp_path, variant="fused-fp16", rounds=1, device="cpu", size="tiny")
    assert program.run_section(args, "trace", 5)["state"] == "no time"
    broken = program.run_section(args, "trace", 60)
    assert broken["state"] == "failed"
    assert "manifest.json" in broken["error"]
    cut = {"state": "cut off", "error": "after 90 s", "found": {"make x": {"failed": "RuntimeError: no"}}}
    differs = {"state": "done", "found": {"parity": {"same_maths": {"own": True, "outer": False}}}}
    assert program.failures({"steps": cut, "ticks": differs}) == [
        "steps: cut off: after 90 s",
        "steps: make x: RuntimeError: no",
        "ticks: outer does not compute the same",
    ]


def test_an_entry_that_fails_leaves_the_others(report: Any) -> None:
    report.put("before", 1)
    assert report.attempt("broken", lambda: 1 / 0) is None
    assert report.attempt("after", lambda: 2) == 2
    found = type(report).read(report.path)
    assert found["broken"] == {"failed": "ZeroDivisionError: division by zero"}
    assert (found["before"], found["after"]) == (1, 2)


def test_cards_names(load: Any) -> None:
    gpu_id = load("gpu_conditions").gpu_id
    assert [gpu_id(name) for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200", "Orin (nvgpu)")] == [
        "h100",
        "h200",
        "orin-nvgpu",
    ]
