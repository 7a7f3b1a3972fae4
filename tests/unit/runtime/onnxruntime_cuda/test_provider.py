"""What is said where the CUDA provider can't work, how it is told to run, and what its failures mean."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from motedge.errors import HostError
from motedge.runtime.backends.onnxruntime_cuda.failures import run_error
from motedge.runtime.backends.onnxruntime_cuda.placement import RECORD_KEY, read_placement
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider, load_library, missing_provider
from motedge.runtime.backends.onnxruntime_cuda.settings import CudaSettings
from motedge.runtime.cuda.errors import CaptureError, EngineError, OutOfDeviceMemoryError, StickyCudaError


def test_without_the_cuda_package(monkeypatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(HostError, match="built without CUDAExecutionProvider") as caught:
        load_library(Provider())
    assert "pip install onnxruntime-gpu" in str(caught.value)


def test_what_preloading_prints_does_not_reach_the_user(monkeypatch, capsys) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    said = "Failed to load libcudnn.so.9"
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(said), raising=False)  # noqa: T201
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)
    assert load_library(Provider()) is onnxruntime
    assert capsys.readouterr().out == ""


@pytest.fixture
def module(tmp_path):
    return SimpleNamespace(__file__=str(tmp_path / "__init__.py"), __version__="1.31.1", cuda_version="13.0")


def test_the_missing_library_is_named(module) -> None:
    error = missing_provider(module, Provider(), "gen_step")
    assert "could not start CUDAExecutionProvider for graph 'gen_step'" in str(error)
    assert "libonnxruntime_providers_shared.so" in error.got
    assert "CUDA 13.0 and cuDNN 9" in error.expected
    assert "LD_LIBRARY_PATH" in error.fix


def test_where_no_library_is_missing_the_driver_is_suspected(module, monkeypatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: None)
    assert "driver" in missing_provider(module, Provider(), "gen_step").got
    said = "CUDA failure 100: no CUDA-capable device is detected"
    assert missing_provider(module, Provider(), "gen_step", RuntimeError(said)).got == said


def test_options_of_the_provider() -> None:
    options = CudaSettings(memory_limit_bytes=1 << 30).provider_options(1, 0x5000, graphs=True)
    assert options["user_compute_stream"] == str(0x5000)
    assert options["device_id"] == "1"
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("0", "1")
    assert options["gpu_mem_limit"] == str(1 << 30)
    assert all(isinstance(value, str) for value in options.values())
    plain = CudaSettings().provider_options(0, 1, graphs=False)
    assert plain["enable_cuda_graph"] == "0"
    assert "gpu_mem_limit" not in plain


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", OutOfDeviceMemoryError),
        ("Available memory of 1024 is smaller than requested bytes of 4096", OutOfDeviceMemoryError),
        ("CUDA failure 700: an illegal memory access was encountered", StickyCudaError),
        ("CUDA failure 719: unspecified launch failure", StickyCudaError),
        ("CUDA failure 900: operation not permitted when stream is capturing", CaptureError),
        ("CUDA failure 800: operation not permitted ; expr=cudaFreeHost(p)", CaptureError),
        ("CUBLAS failure 13: the GPU program failed to execute", EngineError),
        ("Got invalid dimensions for input: und_kv", EngineError),
    ],
)
def test_what_failures_mean(text, kind) -> None:
    error = run_error(RuntimeError(text), "gen_step", "T=3")
    assert type(error) is kind
    assert error.got == text
    assert "'gen_step' at T=3" in str(error)


def _session(nodes: list[tuple[str, str]]):
    """A session of the CPU, as the CUDA provider's check would see it."""
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy")
    made, last = [], "x"
    for kind, name in nodes:
        out = "y" if name == nodes[-1][1] else name
        inputs = [last, "shape"] if kind == "Reshape" else ["x"] if kind == "Shape" else [last]
        made.append(onnx.helper.make_node(kind, inputs, ["shape" if kind == "Shape" else out], name=name))
        last = last if kind == "Shape" else out
    graph = onnx.helper.make_graph(made, "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 17)]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(RECORD_KEY, "1")
    data = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime does not tell where nodes lie")
    return session


def test_work_on_the_cpu_is_refused_and_named() -> None:
    session = _session([("Relu", "first"), ("Shape", "sizes"), ("Reshape", "last")])
    with pytest.raises(HostError, match="no CUDA kernel for 1 nodes of graph 'gen_step'") as caught:
        read_placement(session, "CUDAExecutionProvider", "gen_step")
    assert caught.value.got == "Relu first"


def test_work_on_shapes_may_stay_on_the_cpu() -> None:
    session = _session([("Shape", "sizes"), ("Reshape", "last")])
    assert read_placement(session, "CUDAExecutionProvider", "gen_step").on_cpu == ("Shape sizes", "Reshape last")


def test_a_library_that_does_not_tell() -> None:
    assert read_placement(object(), "CUDAExecutionProvider", "gen_step").on_cpu is None
