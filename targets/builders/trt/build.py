"""One graph -> one plan, with TensorRT or TensorRT-RTX: the same code, by the version's row of differences."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from typing import Any, Optional

from motedge.memory import available_memory
from motedge.runtime.backends.tensorrt.log import memory_failure, process_logger
from motedge.targets.builders.builder import BuildRequest, BuiltEngine, Progress
from motedge.targets.builders.mapped_weights import MappedWeights
from motedge.targets.builders.trt import network as trt_network
from motedge.targets.builders.trt.attention import allow_decomposition
from motedge.targets.builders.trt.config import load_timing_cache, make_config, save_timing_cache
from motedge.targets.builders.trt.inspector import inspect_plan, raised_in_engine
from motedge.targets.builders.trt.library import Library
from motedge.targets.builders.trt.plan import write_plan
from motedge.targets.builders.trt.precision import NetworkTypes
from motedge.targets.builders.trt.progress import PhaseTracker, make_monitor
from motedge.targets.builders.trt.weak_typing import set_weak_types
from motedge.units import format_bytes


def build_plan(library: Library, request: BuildRequest, progress: Progress, *, inspect: bool) -> BuiltEngine:
    """Builds and writes one plan.

    Args:
        library: the engine library.
        request: what to build; its `out` appears whole or not at all.
        progress: called now and then.
        inspect: ask the engine for its layers, where this machine's GPU can load it.

    Raises:
        BuildError: the library refused the graph, or ran out of memory.
        BundleError: the graph is not as its contract says.
        UsageError: a setting that this version does not have.
        HostError: the disk is full.
    """
    api, logger = library.api, process_logger(library.api)
    logger.errors.clear()
    progress("reading the graph", 0.0)
    builder = api.Builder(logger)
    network = trt_network.create_network(library, builder)
    parser = api.OnnxParser(network, logger)
    trt_network.parse_model(library, parser, request)
    monitor = make_monitor(api, PhaseTracker(progress)) if library.row.progress_monitor else None
    config = make_config(library, builder, request, monitor)
    trt_network.add_profiles(builder, network, config, request)
    types = NetworkTypes(network)
    layers, raised = types.summary(), types.raised(request.dtype, request.asked)
    notes = set_weak_types(library, network, config, request.dtype) + allow_decomposition(library, network)
    notes += [f"the network has no projection {site}, which the recipe names" for site in types.missing(request.asked)]
    del types
    cache = load_timing_cache(config, request.timing_cache)
    # The parser stays alive: it owns the weights that the network refers to
    trim_heap()
    with MappedWeights(request.model.parent):
        built = write_plan(library, builder, network, config, request.out)
    if not built:
        if memory_failure(logger.errors):
            raise trt_network.too_little_memory(request, logger.errors)
        raise trt_network.refusal(library, request, logger.errors)
    save_timing_cache(config, request.timing_cache if cache is not None else None)
    settings, device_memory = request.settings, None
    # Freed before the engine is loaded, which takes as much again
    del network, parser, config, builder
    trim_heap()
    if inspect and not settings.strip_weights:
        layers, raised, device_memory, unasked = _ask_engine(library, logger, request, layers, raised)
        notes += unasked
    return BuiltEngine(
        device_memory_bytes=device_memory,
        layers=layers,
        raised_precision=tuple(raised),
        version_compatible=settings.version_compatible,
        refittable=settings.refittable or settings.strip_weights,
        weights_stripped=settings.strip_weights,
        notes=tuple(notes),
    )


def _ask_engine(
    library: Library, logger: Any, request: BuildRequest, layers: dict[str, Any], raised: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]], Optional[int], list[str]]:
    """Layers of the engine itself beside those of the network; and its activation memory, and what is to be noted."""
    size, free = request.out.stat().st_size, available_memory()
    # It is copied to the GPU, which on a Jetson is the same memory
    if free is not None and size > free:
        note = f"the engine was not asked for its layers: {format_bytes(free)} free, {format_bytes(size)} needed"
        return layers, raised, None, [note]
    # Mapped, so that the system can take the file's pages back as they are copied
    with open(request.out, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        found, device_memory = inspect_plan(library, logger, plan)
    if found is None:
        return layers, raised, None, []
    return {**layers, "engine": found}, [*raised, *raised_in_engine(found, request.dtype)], device_memory, []


def trim_heap() -> None:
    """Gives freed memory back to the system: glibc keeps it otherwise, and the peak counts it."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:
            # Another C library than glibc
            return
