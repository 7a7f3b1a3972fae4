"""Which builder builds where, and what each refuses before it starts."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from builder_graphs import make_bundle
from tensorrt_stub_scene import Stage, make_library

from motedge.errors import HostError, UsageError
from motedge.targets.builders import this_gpu
from motedge.targets.builders.memory_watch import MemoryPeak
from motedge.targets.builders.registry import builder_for, make_builder
from motedge.targets.builders.selection import UNCHECKED, Choice, asked_types
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt import builders
from motedge.targets.builders.trt.library import TENSORRT, describe_library
from motedge.targets.catalog import load_target

PLAIN = BuildSettings()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def be(processor: str, capability: str | None) -> None:
        monkeypatch.setattr(builders.platform, "machine", lambda: processor)
        monkeypatch.setattr(builders, "this_compute_capability", lambda: capability)

    return be


def _tensorrt(version: str = "10.3") -> builders.TensorRtBuilder:
    return builders.TensorRtBuilder(describe_library(TENSORRT, make_library(version, Stage())))


def test_tensorrt_builds_on_the_device_alone(machine: Any) -> None:
    orin = load_target("jetson-orin-nano-8gb")
    machine("aarch64", "8.7")
    assert _tensorrt().check(orin, PLAIN) == ("8.7",)
    machine("x86_64", "8.7")
    with pytest.raises(HostError, match="TensorRT has no cross-build") as caught:
        _tensorrt().check(orin, PLAIN)
    assert "motedge pack" in caught.value.fix
    machine("aarch64", "11.0")
    with pytest.raises(HostError, match=r"a GPU of compute capability 8\.7"):
        _tensorrt().check(orin, PLAIN)
    machine("aarch64", None)
    with pytest.raises(HostError, match="no GPU that CUDA can use"):
        _tensorrt().check(orin, PLAIN)
    machine("x86_64", "9.0")
    assert _tensorrt("11.4").check(load_target("h100"), PLAIN) == ("9.0",)


def test_tensorrt_rtx_builds_for_its_own_gpus(machine: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    machine("x86_64", None)
    builder = make_builder("tensorrt-rtx")
    assert builder.check(load_target("rtx-5090"), PLAIN) == ("12.0",)
    assert builder.check(load_target("dgx-spark"), PLAIN) == ("12.1",)
    for name in ("jetson-orin-nano-8gb", "jetson-agx-thor-t5000", "h100"):
        with pytest.raises(HostError, match="TensorRT-RTX builds nothing for"):
            builder.check(load_target(name), PLAIN)
    for settings in (BuildSettings(refittable=True), BuildSettings(strip_weights=True)):
        with pytest.raises(HostError, match="only where it finds a GPU"):
            builder.check(load_target("rtx-5090"), settings)
    machine("x86_64", "12.0")
    assert builder.check(load_target("rtx-5090"), BuildSettings(refittable=True)) == ("12.0",)
    with pytest.raises(UsageError, match="--version-compatible"):
        builder.check(load_target("rtx-5090"), BuildSettings(version_compatible=True))


def test_onnxruntime_builds_for_cpus(machine: Any) -> None:
    builder = make_builder("onnxruntime")
    assert builder.check(load_target("cpu"), PLAIN) == ()
    with pytest.raises(UsageError, match="makes engines for CPUs"):
        builder.check(load_target("rtx-4090"), PLAIN)
    with pytest.raises(UsageError, match="--workspace-gb"):
        builder.check(load_target("cpu"), BuildSettings(workspace_gb=1))
    for name in ("tensorrt", "tensorrt-rtx"):
        if name == "tensorrt":
            with pytest.raises(UsageError, match="is none"):
                _tensorrt().check(load_target("cpu"), PLAIN)


def test_the_builder_of_a_target() -> None:
    assert builder_for(load_target("cpu")).name == "onnxruntime"
    assert builder_for(load_target("rtx-4090")).name == "tensorrt-rtx"
    assert builder_for(load_target("jetson-agx-thor-t5000")).name == "tensorrt"
    assert builder_for(load_target("dgx-spark"), "tensorrt").name == "tensorrt"
    with pytest.raises(UsageError, match="did you mean 'tensorrt-rtx'"):
        make_builder("tensorrt-rtxx")


@pytest.mark.parametrize(
    "wrong", [{"optimization_level": 6}, {"optimization_level": -1}, {"workspace_gb": 0}, {"workspace_gb": 1e6}]
)
def test_settings_that_do_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        BuildSettings(**wrong)


class _Driver:
    """libcuda: every call returns `code`; attributes 75 and 76 are the capability."""

    def __init__(self, code: int) -> None:
        self.code = code

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


@pytest.mark.parametrize(("code", "expected"), [(0, "8.7"), (100, None)])
def test_the_gpu_of_this_machine(monkeypatch: pytest.MonkeyPatch, code: int, expected: str | None) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _Driver(code))
    this_gpu.this_compute_capability.cache_clear()
    assert this_gpu.this_compute_capability() == expected
    this_gpu.this_compute_capability.cache_clear()


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    this_gpu.this_compute_capability.cache_clear()
    assert this_gpu.this_compute_capability() is None
    this_gpu.this_compute_capability.cache_clear()


def test_memory_as_the_kernel_tells_it(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    status, peak = tmp_path / "7/status", MemoryPeak()
    status.write_text("Name:\tx\nVmHWM:\t    2000 kB\nRssAnon:\t     500 kB\n")
    peak.watch(7, tmp_path)
    status.write_text("Name:\tx\nVmHWM:\t    3000 kB\nRssAnon:\t     100 kB\n")
    peak.watch(7, tmp_path)
    peak.watch(8, tmp_path)
    assert (peak.resident, peak.anonymous) == (3000 * 1024, 500 * 1024)


def test_a_device_without_onnx_builds_quantized_graphs_and_says_what_it_did_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle(tmp_path / "b", ("fused-fp16-fp8",))
    choice = Choice("gen_step", "fused-fp16-fp8", bundle.variant("gen_step", "fused-fp16-fp8"))
    assert asked_types(bundle, choice)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert asked_types(bundle, choice) == {}
    assert UNCHECKED in caplog.text
