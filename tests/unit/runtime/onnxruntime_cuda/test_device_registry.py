"""Opening engines of the GPU by the backend's name, on the device and behind the host's protocol."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.bundle import Bundle, Variant
from motedge.errors import BundleError, HostError, UsageError
from motedge.files import write_json
from motedge.runtime.backends import DEVICE_BACKENDS, choose_variant, open_engine
from motedge.runtime.backends.device_registry import open_device_engine
from motedge.runtime.backends.onnxruntime_cuda import CudaSettings, OnnxRuntimeCudaEngine
from motedge.runtime.backends.onnxruntime_cuda import engine as engine_module
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.engine import EngineOptions
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles

GRAPH = "gen_step"
BACKEND = "onnxruntime-cuda"


def _bundle_with(root, *ids: str) -> Bundle:
    bundle = Bundle.open(root)
    file = bundle.variant(GRAPH, "primitive-fp32").file
    kinds = {name: name.split("-")[:2] for name in ids}
    variants = {name: Variant(file, (), *kind, 17) for name, kind in kinds.items()}
    graphs = {**bundle.manifest.graphs, GRAPH: dataclasses.replace(bundle.graph(GRAPH), variants=variants)}
    return Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs=graphs))


@pytest.fixture
def gpu(monkeypatch):
    """A simulated GPU, on which the CPU's provider stands for CUDA's."""
    cuda = HostCuda()
    monkeypatch.setattr(engine_module, "Provider", lambda: Provider("CPUExecutionProvider", "cpu", cuda.enqueue))
    monkeypatch.setattr("motedge.runtime.cuda.choose.open_cuda", lambda ordinal=0, provider=None: cuda)
    yield cuda
    cuda.close()


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [
        (("primitive-fp32", "fused-bf16", "primitive-fp16", "fused-fp16"), "fused-fp16"),
        (("primitive-fp32", "fused-bf16", "primitive-fp16"), "primitive-fp16"),
        (("fused-bf16", "primitive-fp32"), "primitive-fp32"),
        (("fused-bf16",), "fused-bf16"),
    ],
)
def test_the_first_that_runs_is_chosen(onnx_bundle, ids, chosen) -> None:
    assert choose_variant(_bundle_with(onnx_bundle, *ids), GRAPH, backend=BACKEND) == chosen


def test_every_backend_is_known_by_its_name(onnx_bundle) -> None:
    assert DEVICE_BACKENDS == ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
    with pytest.raises(UsageError, match="did you mean 'onnxruntime-cuda'"):
        open_engine(Bundle.open(onnx_bundle), GRAPH, backend="onnxruntime_cuda")


def test_a_backend_of_the_host_is_refused_on_the_device(gpu, onnx_bundle) -> None:
    with pytest.raises(UsageError, match="'onnxruntime' does not run on a GPU"):
        open_device_engine(Bundle.open(onnx_bundle), GRAPH, gpu, backend="onnxruntime")


def test_an_engine_on_the_device(gpu, onnx_bundle) -> None:
    with gpu.current():
        mine = gpu.stream()
        engine = open_device_engine(
            Bundle.open(onnx_bundle),
            GRAPH,
            gpu,
            backend=BACKEND,
            options=EngineOptions(threads=1),
            stream=mine,
            settings=CudaSettings(cuda_graph="outer"),
        )
    assert isinstance(engine, OnnxRuntimeCudaEngine)
    assert (engine.stream, engine.cuda_graph, engine.dtype) == (mine, "outer", "fp32")
    engine.close()


def test_a_target_means_nothing_to_onnxruntime(gpu, onnx_bundle) -> None:
    with pytest.raises(UsageError, match="runs the graphs themselves"):
        open_device_engine(Bundle.open(onnx_bundle), GRAPH, gpu, backend=BACKEND, target="jetson-agx-orin-64gb")


@pytest.mark.parametrize("options", [{"trust_host_code": True}, {"weight_streaming_budget": 0}])
def test_onnxruntime_has_no_engines_to_trust_or_to_stream(gpu, onnx_bundle, options) -> None:
    with pytest.raises(UsageError, match="no engine to trust"):
        open_device_engine(Bundle.open(onnx_bundle), GRAPH, gpu, backend=BACKEND, **options)


def test_a_changed_file_is_not_loaded(gpu, onnx_bundle) -> None:
    path = onnx_bundle / "graphs/gen_step.primitive-fp32.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"differs from what was exported|not an ONNX model"):
        open_engine(Bundle.open(onnx_bundle), GRAPH, backend=BACKEND)
    assert gpu.closed


def test_numpy_arrays_in_and_out(gpu, onnx_bundle, model) -> None:
    engine = open_engine(Bundle.open(onnx_bundle), "vae_encoder", backend=BACKEND, options=EngineOptions(threads=1))
    image = np.random.RandomState(3).standard_normal((1, 3, model.canvas, model.canvas)).astype(np.float32)
    context = engine.context({})
    context.set_input("image", image)
    context.run()
    expected = model.functions["vae_encoder"]({"image": image})[0]
    np.testing.assert_allclose(context.output("latent"), expected, rtol=1e-5, atol=1e-6)
    engine.close()
    # With what it opened
    assert gpu.closed


def test_without_a_gpu_nothing_stays_open(onnx_bundle, monkeypatch) -> None:
    def fail(ordinal=0, provider=None):
        raise HostError("no GPU")

    monkeypatch.setattr("motedge.runtime.cuda.choose.open_cuda", fail)
    with pytest.raises(HostError, match="no GPU"):
        open_engine(Bundle.open(onnx_bundle), GRAPH, backend=BACKEND)


def test_a_library_that_is_missing_closes_the_gpu(onnx_bundle, monkeypatch) -> None:
    """The CPU's onnxruntime is installed here, which has no CUDA provider."""
    import onnxruntime

    cuda = HostCuda()
    monkeypatch.setattr("motedge.runtime.cuda.choose.open_cuda", lambda ordinal=0, provider=None: cuda)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(HostError, match="onnxruntime-gpu"):
        open_engine(Bundle.open(onnx_bundle), GRAPH, backend=BACKEND)
    assert cuda.closed
    assert cuda.ledger == {}


def _build(root, **engines: str) -> None:
    """A record that says which variants were built, by target; `jetson="tensorrt:fused-bf16"`."""
    for target, text in engines.items():
        builder, variant = text.split(":")
        engine = EngineFile(
            graph=GRAPH,
            variant=variant,
            file="x.engine",
            bytes=1,
            sha256="0" * 64,
            builder=builder,
            builder_version="10.3.0.30",
            compute_capabilities=("8.7",),
            platform="aarch64-linux",
            created="2026-11-01T00:00:00+00:00",
            seconds=1.0,
            peak_memory_bytes=1,
            peak_anonymous_bytes=1,
            device_memory_bytes=1,
            settings={},
            source="0" * 64,
        )
        folder = root / "engines" / target
        write_json(folder / BUILD_FILE, EngineFiles(folder, target, (engine,)).to_dict())


def test_of_engines_the_variant_is_the_one_that_was_built(onnx_bundle) -> None:
    bundle = _bundle_with(onnx_bundle, "primitive-fp32", "primitive-fp16", "fused-bf16")
    _build(
        onnx_bundle, jetson="tensorrt:fused-bf16", server="tensorrt-rtx:primitive-fp16", cpu="onnxruntime:fused-fp16"
    )
    assert choose_variant(bundle, GRAPH, backend="tensorrt") == "fused-bf16"
    assert choose_variant(bundle, GRAPH, backend="tensorrt-rtx") == "primitive-fp16"


def test_a_bundle_without_engines_says_how_to_get_them(onnx_bundle) -> None:
    _build(onnx_bundle, cpu="onnxruntime:primitive-fp32")
    with pytest.raises(BundleError, match="no engine of graph 'gen_step' for tensorrt") as caught:
        choose_variant(Bundle.open(onnx_bundle), GRAPH, backend="tensorrt")
    assert "motedge build" in str(caught.value)
    assert "engines for onnxruntime" in str(caught.value)
