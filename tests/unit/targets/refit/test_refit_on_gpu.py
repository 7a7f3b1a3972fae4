"""The program that refits on a GPU, on stubs of real releases that compute in numpy: it runs, and finds faults."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import refit_graph
import refit_on_gpu
from tensorrt_stub import make_module

PLAIN, REFITTABLE = b"plain " * 100, b"refit " * 100
Weights = dict[str, np.ndarray]


class Device:
    """Memory of the "GPU": the host's; and what is wrong with the library."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        # Makes of an engine's weights what it computes with
        self.fault: Callable[[Weights, bool], Weights] = lambda weights, refittable: weights
        # Weights that are taken, and forgotten
        self.forgotten: set[str] = set()

    def driver(self) -> ModuleType:
        module = ModuleType("cuda.bindings.driver")
        done = object()
        module.CUresult = SimpleNamespace(CUDA_SUCCESS=done)  # type: ignore[attr-defined]

        def alloc(size: int) -> tuple[Any, int]:
            block = ctypes.create_string_buffer(size)
            self.blocks[ctypes.addressof(block)] = block
            return done, ctypes.addressof(block)

        def copy(target: int, source: int, size: int) -> tuple[Any]:
            ctypes.memmove(target, source, size)
            return (done,)

        def free(address: int) -> tuple[Any]:
            del self.blocks[address]
            return (done,)

        members = {"cuMemAlloc": alloc, "cuMemcpyHtoD": copy, "cuMemcpyDtoH": copy, "cuMemFree": free}
        for name in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamCreate"):
            members[name] = lambda *args: (done, 0)
        members["cuStreamSynchronize"] = lambda *args: (done,)
        for name, member in members.items():
            setattr(module, name, member)
        return module

    def behaviour(self, made: dict[str, Any]) -> dict[tuple[str, str], Any]:
        def load(own: Any, plan: bytes) -> Any:
            data = bytes(plan)
            if data[: len(PLAIN)] not in (PLAIN, REFITTABLE):
                return None
            engine = made["api"].ICudaEngine()
            engine.stub_refittable = data.startswith(REFITTABLE)
            engine.stub_weights = refit_graph.weights("new" if data.endswith(b"new") else "old")
            return engine

        def build(own: Any, network: Any, config: Any) -> bytes:
            return REFITTABLE if made["api"].BuilderFlag.REFIT in vars(config).get("stub_flags", []) else PLAIN

        def add_flag(own: Any, flag: Any) -> None:
            own.stub_flags = [*vars(own).get("stub_flags", []), flag]

        def execute(own: Any, stream: int) -> bool:
            addresses, shape, engine = own.stub_addresses, own.stub_shape, own.stub_engine
            x = np.frombuffer(self.blocks[addresses["x"]], np.float32).reshape(shape)
            weights = self.fault(dict(engine.stub_weights), engine.stub_refittable)
            y = refit_graph.reference(weights, x).astype(np.float32)
            ctypes.memmove(addresses["y"], y.ctypes.data, y.nbytes)
            return True

        def serialize(own: Any, *args: Any) -> bytes:
            new = all(np.array_equal(v, refit_graph.weights("new")[k]) for k, v in own.stub_weights.items())
            return REFITTABLE + (b"new" if new else b"old")

        return {
            ("Builder", "create_network"): lambda own, flags=0: made["api"].INetworkDefinition(),
            ("Builder", "create_builder_config"): lambda own: made["api"].IBuilderConfig(),
            ("Builder", "create_optimization_profile"): lambda own: made["api"].IOptimizationProfile(),
            ("Builder", "build_serialized_network"): build,
            ("OnnxParser", "parse_from_file"): lambda own, path: Path(path).is_file(),
            ("IBuilderConfig", "set_flag"): add_flag,
            ("Runtime", "deserialize_cuda_engine"): load,
            ("ICudaEngine", "serialize"): serialize,
            ("ICudaEngine", "serialize_with_config"): serialize,
            ("ICudaEngine", "create_serialization_config"): lambda own: made["api"].ISerializationConfig(),
            ("ICudaEngine", "device_memory_size_v2"): 1,
            ("IExecutionContext", "set_input_shape"): lambda own, name, shape: setattr(own, "stub_shape", shape),
            ("IExecutionContext", "set_tensor_address"): lambda own, name, at: own.stub_addresses.update({name: at}),
            ("IExecutionContext", "execute_async_v3"): execute,
            **self._refitters(),
        }

    def _refitters(self) -> dict[tuple[str, str], Any]:
        def start(own: Any, engine: Any, logger: Any) -> None:
            if not engine.stub_refittable:
                raise TypeError("factory function returned nullptr")
            own.stub_engine, own.stub_given = engine, {}

        def give(own: Any, name: str, value: np.ndarray, *more: Any) -> bool:
            old = own.stub_engine.stub_weights.get(name)
            if old is None or old.size != value.size:
                return False
            own.stub_given[name] = value
            return True

        def refit(own: Any) -> bool:
            kept = {k: v for k, v in own.stub_given.items() if k not in self.forgotten}
            own.stub_engine.stub_weights = {**own.stub_engine.stub_weights, **kept}
            return True

        def parse(own: Any, path: str) -> bool:
            return all(give(own.stub_refitter, k, v) for k, v in refit_graph.weights("new").items())

        return {
            ("Refitter", "__init__"): start,
            ("Refitter", "get_all_weights"): lambda own: list(own.stub_engine.stub_weights),
            ("Refitter", "get_missing_weights"): lambda own: [],
            ("Refitter", "set_named_weights"): give,
            ("Refitter", "refit_cuda_engine"): refit,
            ("OnnxParserRefitter", "__init__"): lambda own, refitter, logger: setattr(own, "stub_refitter", refitter),
            ("OnnxParserRefitter", "refit_from_file"): parse,
        }


@pytest.fixture
def device() -> Device:
    return Device()


def _run(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, bool]]:
    made: dict[str, Any] = {}
    made["api"] = make_module(version, device.behaviour(made))

    def context(own: Any) -> Any:
        value = made["api"].IExecutionContext()
        value.stub_engine, value.stub_addresses = own, {}
        return value

    # Past the stub's check of signatures, which takes a default that is no plain word for none
    monkeypatch.setattr(made["api"].ICudaEngine, "create_execution_context", context)
    bindings = ModuleType("cuda.bindings")
    bindings.driver = device.driver()  # type: ignore[attr-defined]
    for name, module in (
        ("tensorrt", made["api"]),
        ("cuda", ModuleType("cuda")),
        ("cuda.bindings", bindings),
        ("cuda.bindings.driver", bindings.driver),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    code = refit_on_gpu.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {line["check"]: line["passed"] for line in lines if "check" in line}


@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4"])
def test_a_sound_library_passes(
    device: Device, version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _run(device, version, monkeypatch, capsys)
    assert code == 0 and all(found.values())
    assert ("which computes the new weights" in found) is (version != "8.6")
    assert not device.blocks


def test_a_dropped_bias_is_found(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drop(weights: Weights, refittable: bool) -> Weights:
        return {**weights, "proj_in.bias": weights["proj_in.bias"] * 0} if refittable else weights

    device.fault = drop
    code, found = _run(device, "8.6", monkeypatch, capsys)
    assert code == 1 and found["plain engine is right"] and not found["refittable engine is right"]


@pytest.mark.parametrize("name", sorted(refit_graph.weights("old")))
def test_a_forgotten_weight_is_found(
    device: Device, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device.forgotten = {name}
    code, found = _run(device, "11.4", monkeypatch, capsys)
    assert code == 1 and not found["refitted engine is right"] and not found["which computes the new weights"]
