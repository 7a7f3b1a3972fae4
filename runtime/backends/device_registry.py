"""Opening engines on a GPU, by the backend's name: onnxruntime with the CUDA provider, TensorRT, TensorRT-RTX."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Optional

from motedge.bundle import Bundle
from motedge.errors import UsageError, closest
from motedge.runtime.backends.registry import DEVICE_BACKENDS, choose_variant
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import Engine, EngineOptions

if TYPE_CHECKING:
    from motedge.runtime.backends.onnxruntime_cuda import CudaSettings

ONNXRUNTIME_CUDA = "onnxruntime-cuda"


def open_device_engine(
    bundle: Bundle,
    graph: str,
    cuda: Cuda,
    *,
    backend: str,
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    target: Optional[str] = None,
    options: Optional[EngineOptions] = None,
    stream: Optional[Stream] = None,
    settings: Optional[CudaSettings] = None,
    trust_host_code: bool = False,
    weight_streaming_budget: Optional[int] = None,
) -> DeviceEngine:
    """Checks the files of one variant of a graph, and loads it onto the GPU.

    Args:
        bundle: the bundle.
        graph: "und_prefill", "gen_step", "vae_encoder" or "solver_step".
        cuda: the GPU.
        backend: one of DEVICE_BACKENDS.
        variant: an id such as "fused-fp16"; None takes the backend's first choice that the bundle has.
        recipe: quantization recipe; see `motedge.runtime.backends.open_engine`.
        target: TensorRT's engines only: folder of `engines/` to take; None: the one that fits the GPU.
        options: threads and how thoroughly files are checked.
        stream: the one on which the engine will mostly be enqueued; onnxruntime runs on it, TensorRT on any.
        settings: onnxruntime only: how its provider runs.
        trust_host_code: TensorRT's engines only: load those that hold host code (`motedge build --version-compatible`).
        weight_streaming_budget: TensorRT's engines only: see `open_tensorrt_engine`.

    Raises:
        UsageError: no such backend, or it can't run the variant that was asked for.
        BundleError: no such graph or variant, a file that is missing or changed, an engine that was never built.
        HostError: a library is missing or too old, the engine is for another GPU, or there is no room for it.
    """
    if backend not in DEVICE_BACKENDS:
        raise UsageError(f"backend {backend!r} does not run on a GPU", fix=closest(backend, DEVICE_BACKENDS))
    options = options or EngineOptions()
    if backend != ONNXRUNTIME_CUDA:
        from motedge.runtime.backends.tensorrt.find import open_tensorrt_engine

        return open_tensorrt_engine(
            bundle,
            graph,
            cuda,
            backend=backend,
            target=target,
            variant=variant,
            recipe=recipe,
            check_content=options.check_content,
            trust_host_code=trust_host_code,
            weight_streaming_budget=weight_streaming_budget,
        )
    if target is not None:
        raise UsageError("onnxruntime runs the graphs themselves", expected="no target", got=target)
    if trust_host_code or weight_streaming_budget is not None:
        raise UsageError("onnxruntime has no engine to trust and no weights to stream", fix="take TensorRT, or neither")
    chosen = choose_variant(bundle, graph, backend=backend, variant=variant, recipe=recipe)
    return _open_onnxruntime(bundle, graph, chosen, cuda, options, stream, settings)


def _open_onnxruntime(
    bundle: Bundle,
    graph: str,
    chosen: str,
    cuda: Cuda,
    options: EngineOptions,
    stream: Optional[Stream],
    settings: Optional[CudaSettings],
) -> DeviceEngine:
    from motedge.runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaEngine

    model = bundle.check_variant(graph, chosen, content=options.check_content)
    dtype = bundle.variant(graph, chosen).dtype
    return OnnxRuntimeCudaEngine(
        model, bundle.contract(graph), dtype, cuda, settings, stream=stream, threads=options.threads
    )


def open_host_engine(
    bundle: Bundle,
    graph: str,
    *,
    backend: str,
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    target: Optional[str] = None,
    options: Optional[EngineOptions] = None,
    ordinal: int = 0,
) -> Engine:
    """An engine of the GPU with numpy arrays on the outside, and a CUDA context that it closes itself.

    Args and errors as in `open_device_engine`; `ordinal`: the GPU's number. HostError where there is no GPU.
    """
    from motedge.runtime.cuda.choose import open_cuda
    from motedge.runtime.device.host_engine import HostEngine

    cuda = open_cuda(ordinal)
    with contextlib.ExitStack() as opened:
        opened.callback(cuda.close)
        with cuda.current():
            stream = cuda.stream()
            engine = open_device_engine(
                bundle,
                graph,
                cuda,
                backend=backend,
                variant=variant,
                recipe=recipe,
                target=target,
                options=options,
                stream=stream,
            )
        host = HostEngine(engine, cuda, stream=stream, owns_cuda=True)
        opened.pop_all()
    return host
