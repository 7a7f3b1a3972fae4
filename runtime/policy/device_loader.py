"""Opening a policy's tick on a GPU: context, engines, workspace and loop, in an order in which each can fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Optional, Union

from motedge.bundle import Bundle
from motedge.runtime.backends.device_registry import ONNXRUNTIME_CUDA, open_device_engine
from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.cuda.recover import reset_context
from motedge.runtime.device.graph_solver import GRAPH as SOLVER
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.prefill import PromptReader
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.kernels import KernelLibrary
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.policy.device_sight import make_sight
from motedge.runtime.policy.device_tick import DeviceTick
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.policy.one_thread import OneThreadTick
from motedge.runtime.policy.recovery import RecoveringTick
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.serving_protocol import ServingProtocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import PolicyTick
from motedge.runtime.tables import Tables

LOG = logging.getLogger(__name__)


def open_device_tick(
    bundle: Bundle,
    tables: Tables,
    shape: PolicyShape,
    protocol: ServingProtocol,
    seeds: RequestSeeds,
    model_config: Mapping[str, Any],
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    reader: Optional[PromptReader] = None,
) -> PolicyTick:
    """A tick on the GPU that survives one loss of its context, unless it has its prompts read by others.

    Args:
        bundle: the bundle.
        tables: its tables.
        shape: of the policy's requests.
        protocol: of its embodiment.
        seeds: whose next one the noise is drawn ahead for.
        model_config: transformer/config.json.
        choice: backend, variant, recipe and options, as `open_device_engine` takes them.
        gpu: how the GPU is used.
        reader: reads prompts in the place of graph und_prefill, which is then not opened. What it has on the GPU would
            be lost with the context, and is not this tick's to open anew.

    Raises:
        HostError: no GPU, no driver, a library missing; an engine of another GPU or version; too little memory.
        BundleError: an engine or graph is missing, changed or damaged.
    """

    def make() -> DeviceTick:
        cuda = open_cuda(gpu.ordinal, priorities=gpu.priority != "normal")
        with cuda.current(), contextlib.ExitStack() as opened:
            opened.callback(cuda.close)
            tick = _assemble(opened, cuda, bundle, tables, shape, protocol, seeds, model_config, choice, gpu, reader)
            # From here on the tick closes them
            opened.pop_all()
        return tick

    def opened_tick() -> PolicyTick:
        return make() if reader is not None else RecoveringTick(make, lambda: reset_context(gpu.ordinal))

    return OneThreadTick(opened_tick) if choice["backend"] == ONNXRUNTIME_CUDA else opened_tick()


def _assemble(
    opened: contextlib.ExitStack,
    cuda: Cuda,
    bundle: Bundle,
    tables: Tables,
    shape: PolicyShape,
    protocol: ServingProtocol,
    seeds: RequestSeeds,
    model_config: Mapping[str, Any],
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    reader: Optional[PromptReader],
) -> DeviceTick:
    stream = cuda.stream(gpu.priority)

    def load(graph: str) -> DeviceEngine:
        engine = open_device_engine(bundle, graph, cuda, stream=stream, **gpu.engine_options(graph), **choice)
        opened.callback(engine.close)
        return engine

    kernels, lacking = KernelLibrary.find(cuda) if gpu.kernels else (None, "switched off")
    if lacking is not None:
        LOG.warning("solver and images do without the compiled kernels: %s", lacking)
    # The largest first: what does not fit fails before the rest is loaded
    gen = load("gen_step")
    prompts: Union[DeviceEngine, PromptReader] = load("und_prefill") if reader is None else reader
    vae = load("vae_encoder")
    solver = None if kernels is not None else load(SOLVER)
    workspace = Workspace(cuda)
    opened.callback(workspace.free)
    largest = _largest(gen, shape, model_config)
    # A reader's are its owner's
    own = [] if isinstance(prompts, PromptReader) else [prompts]
    engines = [*own, gen, vae, *([] if solver is None else [solver])]
    for engine in engines:
        _cover(workspace, engine, largest)
    refusal = None if gpu.cuda_graph else "switched off"
    encoder = ImageEncoder(cuda, vae, workspace, refusal=refusal)
    opened.callback(encoder.close)
    noise = NoiseAhead(next_seed=lambda _: int(seeds.peek()))
    loop = DeviceLoop(
        cuda,
        prompts,
        gen,
        SolverSource(cuda, workspace, kernels, solver),
        tables,
        model_config,
        workspace,
        stream,
        noise=noise,
        capture=gpu.cuda_graph,
    )
    opened.callback(loop.close)
    sight = make_sight(cuda, kernels, encoder, shape, protocol, stream)
    opened.callback(sight.close)
    keep = [engine.save_runtime_cache for engine in engines if isinstance(engine, TensorRtEngine)]
    return DeviceTick(cuda, engines, workspace, encoder, loop, sight, shape, keep)


def _largest(gen: DeviceEngine, shape: PolicyShape, model_config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of the dynamic letters of all graphs for the longest prompt."""
    sizes, profile = gen.contract.sizes, gen.contract.profile
    frames, rows, columns = shape.latent
    patch = int(model_config.get("latent_patch_size", 2))
    tokens = frames * -(-rows // patch) * -(-columns // patch) + shape.rows
    layout = StateLayout((sizes["C"], frames, rows, columns), (shape.rows, sizes["Z"]))
    longest = profile["U"][2]
    return {"T": frames, "A": shape.rows, "N": tokens, "U": longest, "S": longest, "M": layout.size}


def _cover(workspace: Workspace, engine: DeviceEngine, largest: Mapping[str, int]) -> None:
    """Sizes the workspace for an engine's largest shapes, so that it does not move later."""
    profile = engine.contract.profile
    context = engine.context({name: min(size, profile[name][2]) for name, size in largest.items() if name in profile})
    try:
        workspace.cover(context.activation_bytes)
    finally:
        context.close()
