"""Settings -> IBuilderConfig, by what this version of the library has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from motedge.errors import HostError, UsageError
from motedge.files import atomic_path
from motedge.targets.builders.builder import BuildRequest
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.trt.library import Library


def require_settings(library: Library, settings: BuildSettings) -> None:
    """UsageError for a setting that this version does not have."""
    row = library.row
    wants = {
        "--weight-streaming": settings.weight_streaming and not row.weight_streaming,
        "--strip-weights": settings.strip_weights and not row.strip_plan,
        "--version-compatible": settings.version_compatible and not row.version_compatible,
    }
    for option, missing in wants.items():
        if missing:
            reason = row.sources.get("version_compatible") if option == "--version-compatible" else None
            raise UsageError(
                f"{library.name} {library.version} has no {option}", why=reason, fix="leave the option out"
            )


def make_config(library: Library, builder: Any, request: BuildRequest, monitor: Optional[Any]) -> Any:
    """The whole configuration but its profile.

    Raises:
        UsageError: see `require_settings`.
        HostError: the library does not know a compute capability.
    """
    api, row, settings = library.api, library.row, request.settings
    require_settings(library, settings)
    config = builder.create_builder_config()
    # Layer names, types and tactics can be asked of the engine afterwards
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.workspace_gb is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, int(settings.workspace_gb * 1e9))
    for flag in _flags(settings):
        config.set_flag(getattr(api.BuilderFlag, flag))
    if row.ahead_of_time:
        # TensorRT-RTX may otherwise allocate while it runs, which no CUDA graph can capture
        config.set_flag(api.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if row.test_only:
        # Where it is tried, neither cuBLAS nor cuDNN is beside it: without their kernels it needs neither
        config.set_tactic_sources(0)
        # The contexts of both branches are alive at once, on one profile. Later versions always let them; 8.6 crashes
        # without it, in the second one's infer_shapes
        config.set_preview_feature(api.PreviewFeature.PROFILE_SHARING_0806, True)
    if monitor is not None and row.progress_monitor:
        config.progress_monitor = monitor
    if row.ahead_of_time and request.capabilities:
        config.num_compute_capabilities = len(request.capabilities)
        for index, capability in enumerate(request.capabilities):
            config.set_compute_capability(_capability(library, capability), index)
    return config


def load_timing_cache(config: Any, path: Optional[Path]) -> Optional[Any]:
    """Gives the configuration what earlier builds measured; an empty cache where there is none or it does not fit."""
    if path is None:
        return None
    data = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        # Of another GPU or version in spite of its name: measured anew rather than trusted
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def save_timing_cache(config: Any, path: Optional[Path]) -> None:
    """Keeps what was measured for the next build."""
    cache = config.get_timing_cache() if path is not None else None
    if path is None or cache is None:
        return
    with atomic_path(path) as partial:
        partial.write_bytes(bytes(cache.serialize()))


def _flags(settings: BuildSettings) -> list[str]:
    """Names of BuilderFlags. TF32 is on by default and stays: fp32 layers of 16-bit graphs are a few small ones."""
    flags = []
    if settings.weight_streaming:
        flags.append("WEIGHT_STREAMING")
    if settings.strip_weights:
        flags.append("STRIP_PLAN")
    if settings.refittable:
        flags.append("REFIT")
    elif settings.strip_weights:
        # The same weights come back, so that the engine need not give up any optimisation for others
        flags.append("REFIT_IDENTICAL")
    if settings.version_compatible:
        flags.append("VERSION_COMPATIBLE")
    return flags


def _capability(library: Library, capability: str) -> Any:
    name = f"SM{capability.replace('.', '')}"
    known = library.api.ComputeCapability
    if not hasattr(known, name):
        raise HostError(f"{library.name} {library.version} does not build for compute capability {capability}")
    return getattr(known, name)
