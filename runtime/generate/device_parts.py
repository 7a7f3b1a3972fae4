"""Opening a generator's engines on a GPU, in an order in which each can fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.device.graph_solver import GRAPH as SOLVER
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.prefill import PromptReader
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.generate.device_graphs import DeviceGraphs
from motedge.runtime.generate.parts import Parts
from motedge.runtime.kernels import KernelLibrary
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.request import GenInputs, GenResult, SamplerSettings
from motedge.runtime.sound import open_sound_decoder
from motedge.runtime.step_view import StepWatch
from motedge.runtime.tables import Tables
from motedge.runtime.vae import open_decoder, open_encoder

LOG = logging.getLogger(__name__)
# Kinds of requests whose contexts and graphs are kept: of a long video each holds vectors of hundreds of MB
_KINDS = 3


def open_device_parts(
    bundle: Bundle,
    tables: Tables,
    model_config: Mapping[str, Any],
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    *,
    sound: bool,
    reader: Optional[PromptReader] = None,
) -> Parts:
    """A generator's parts on one GPU.

    Args:
        bundle: the bundle.
        tables: its tables.
        model_config: transformer/config.json.
        choice: backend, variant, recipe and options, as `open_device_engine` takes them.
        gpu: how the GPU is used.
        sound: gen_step_sound in the place of gen_step.
        reader: reads prompts in the place of graph und_prefill, which is then not opened.

    Raises:
        HostError: no GPU, no driver, a library missing; an engine of another GPU or version; too little memory.
        BundleError: an engine or graph is missing, changed or damaged.
    """
    cuda = open_cuda(gpu.ordinal, priorities=gpu.priority != "normal")
    with contextlib.ExitStack() as opened:
        opened.callback(cuda.close)
        with cuda.current():
            graphs = DeviceGraphs(bundle, cuda, choice, gpu)
            opened.pop_all()
            opened.callback(graphs.close)
            parts = _assemble(opened, graphs, bundle, tables, model_config, gpu, sound, reader)
        # From here on the generator closes them
        opened.pop_all()
    return parts


class ContextLoop:
    """The loop on a device as the generator calls it: with the context current."""

    def __init__(self, cuda: Cuda, loop: DeviceLoop) -> None:
        self._cuda, self._loop = cuda, loop

    def run(self, inputs: GenInputs, settings: SamplerSettings, watch: Optional[StepWatch] = None) -> GenResult:
        """See `DeviceLoop.run`."""
        with self._cuda.current():
            return self._loop.run(inputs, settings, watch)

    def close(self) -> None:
        """See `DeviceLoop.close`."""
        with contextlib.ExitStack() as steps:
            # Of a lost context nothing can be freed, but the noise thread ends
            with contextlib.suppress(CudaError):
                steps.enter_context(self._cuda.current())
            self._loop.close()


def _assemble(
    opened: contextlib.ExitStack,
    graphs: DeviceGraphs,
    bundle: Bundle,
    tables: Tables,
    model_config: Mapping[str, Any],
    gpu: GpuOptions,
    sound: bool,
    reader: Optional[PromptReader],
) -> Parts:
    cuda = graphs.cuda
    kernels, lacking = KernelLibrary.find(cuda) if gpu.kernels else (None, "switched off")
    if lacking is not None:
        LOG.warning("the solver does without the compiled kernels: %s", lacking)
    # The largest first: what does not fit fails before the rest is loaded
    gen = graphs.load("gen_step_sound" if sound else "gen_step")
    prompts = graphs.load("und_prefill") if reader is None else reader
    image = graphs.engine("vae_encoder")
    opened.callback(image.close)
    # The kernel knows no sound
    solver = graphs.load(SOLVER) if sound or kernels is None else None
    loop = DeviceLoop(
        cuda,
        prompts,
        gen,
        SolverSource(cuda, graphs.workspace, kernels, solver),
        tables,
        model_config,
        graphs.workspace,
        graphs.stream,
        capture=gpu.cuda_graph,
        max_programs=_KINDS,
    )
    return Parts(
        loop=ContextLoop(cuda, loop),
        gen_contract=gen.contract,
        image_encoder=image,
        open_encoder=lambda: open_encoder(bundle, source=graphs),
        open_decoder=lambda: open_decoder(bundle, source=graphs),
        open_sound=(lambda: open_sound_decoder(bundle, load=graphs.engine)) if sound else None,
        engines=(image, graphs),
        memory_bytes=graphs.memory_bytes,
    )
