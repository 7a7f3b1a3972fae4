"""Opening the reasoner's engines on a GPU: context, engines, workspace, buffers, in an order in which each can fail."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Optional, Union

from motedge.bundle import Bundle
from motedge.runtime.backends.device_registry import ONNXRUNTIME_CUDA, open_device_engine
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.device.host_engine import HostEngine
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.reasoner.device_towers import DeviceTowers
from motedge.runtime.reasoner.device_und import DeviceUnd
from motedge.runtime.reasoner.one_thread_towers import OneThreadTowers
from motedge.runtime.reasoner.und_engine import GRAPH as UND
from motedge.runtime.reasoner.vision_engine import GRAPH as VISION
from motedge.runtime.reasoner.vision_engine import EngineVision
from motedge.runtime.reasoner.vision_settings import VisionSettings

Towers = Union[DeviceTowers, OneThreadTowers]


def open_device_towers(
    bundle: Bundle,
    positions: FloatArray,
    settings: VisionSettings,
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    capacity: Optional[int],
) -> Towers:
    """Both towers on one stream, one workspace and one CUDA context, which they close.

    Args:
        bundle: the bundle.
        positions: the vision encoder's learned ones.
        settings: of images and videos.
        choice: backend, variant, recipe and options, as `open_device_engine` takes them.
        gpu: how the GPU is used.
        capacity: tokens of prompt and reply; see `DeviceUnd`.

    Raises:
        HostError: no GPU, no driver, a library missing; an engine of another GPU or version; too little memory.
        BundleError: an engine or graph is missing, changed or damaged.
        ContractError: a capacity outside the graph's profile.
    """

    def make() -> DeviceTowers:
        cuda = open_cuda(gpu.ordinal, priorities=gpu.priority != "normal")
        with contextlib.ExitStack() as opened:
            opened.callback(cuda.close)
            with cuda.current(), contextlib.ExitStack() as parts:
                towers = _assemble(parts, cuda, bundle, positions, settings, choice, gpu, capacity)
            # From here on the towers close everything
            opened.pop_all()
        return towers

    return OneThreadTowers(make) if choice["backend"] == ONNXRUNTIME_CUDA else make()


def _assemble(
    parts: contextlib.ExitStack,
    cuda: Cuda,
    bundle: Bundle,
    positions: FloatArray,
    settings: VisionSettings,
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    capacity: Optional[int],
) -> DeviceTowers:
    stream = cuda.stream(gpu.priority)

    def load(graph: str) -> DeviceEngine:
        engine = open_device_engine(bundle, graph, cuda, stream=stream, **gpu.engine_options(graph), **choice)
        parts.callback(engine.close)
        return engine

    # The largest first: what does not fit fails before the rest is loaded
    und_engine = load(UND)
    vision_engine = load(VISION)
    workspace = Workspace(cuda)
    parts.callback(workspace.free)
    hosts = [HostEngine(engine, cuda, stream=stream, workspace=workspace) for engine in (und_engine, vision_engine)]
    for host in hosts:
        parts.callback(host.close)
    refusal = None if gpu.cuda_graph else "switched off"
    und = DeviceUnd(cuda, und_engine, workspace, stream, capacity=capacity, refusal=refusal)
    parts.callback(und.close)
    und.warm_up()
    vision = EngineVision(hosts[1], positions, settings)
    return DeviceTowers(cuda, (und_engine, vision_engine), und, vision, hosts[0], parts.pop_all())
