"""The builders `tensorrt` (on the device) and `tensorrt-rtx` (ahead of time, on any x86 or Arm machine)."""

from __future__ import annotations

import platform
from typing import Optional

from motedge.errors import HostError, UsageError
from motedge.runtime.backends.tensorrt.versions import RTX_CAPABILITIES, TensorRtVersion
from motedge.targets.builders.builder import BuildRequest, BuiltEngine, Progress
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.builders.this_gpu import this_compute_capability
from motedge.targets.builders.trt.build import build_plan
from motedge.targets.builders.trt.config import require_settings
from motedge.targets.builders.trt.library import TENSORRT, TENSORRT_RTX, Library, find_library, require_for
from motedge.targets.catalog import Target

# Kinds of targets whose processor is Arm's: a plan built on x86 does not run there
_ARM_KINDS = ("jetson", "drive", "spark")
_ARM_MACHINES = ("aarch64", "arm64")


class TensorRtBuilder:
    """TensorRT 10.3 to 11: plans for the GPU of the machine that builds."""

    name = TENSORRT
    suffix = ".engine"

    def __init__(self, library: Optional[Library] = None) -> None:
        """`library`: None looks for it when it is needed."""
        self._library = library

    def version(self) -> str:
        """See `Builder.version`."""
        return self.library().version

    def dialects(self) -> tuple[str, ...]:
        """See `Builder.dialects`."""
        return self.library().row.dialects

    def row(self) -> Optional[TensorRtVersion]:
        """See `Builder.row`."""
        return self.library().row

    def check(self, target: Target, settings: BuildSettings) -> tuple[str, ...]:
        """See `Builder.check`: TensorRT has no cross-build, so this machine must be the target or have its GPU."""
        capability = _capability(target, self.name)
        require_for(self.library(), target)
        cross = f"engines of TensorRT for {target.name} are built on {target.name}"
        why = "a plan holds code of the GPU and the processor that built it; TensorRT has no cross-build"
        fix = f"motedge pack BUNDLE --target {target.id}, then build on the device"
        if target.kind in _ARM_KINDS and platform.machine().lower() not in _ARM_MACHINES:
            raise HostError(cross, expected="an Arm machine", got=platform.machine(), why=why, fix=fix)
        here = this_compute_capability()
        if here != capability:
            expected = f"a GPU of compute capability {capability}"
            raise HostError(cross, expected=expected, got=here or "no GPU that CUDA can use", why=why, fix=fix)
        require_settings(self.library(), settings)
        return (capability,)

    def build(self, request: BuildRequest, progress: Progress) -> BuiltEngine:
        """See `Builder.build`."""
        return build_plan(self.library(), request, progress, inspect=True)

    def library(self) -> Library:
        """The engine library; HostError as in `Builder.version`."""
        if self._library is None:
            self._library = find_library(self.name)
        return self._library


class TensorRtRtxBuilder(TensorRtBuilder):
    """TensorRT for RTX: engines for a compute capability, whatever GPU is here, if any."""

    name = TENSORRT_RTX

    def check(self, target: Target, settings: BuildSettings) -> tuple[str, ...]:
        """See `Builder.check`."""
        capability = _capability(target, self.name)
        if capability not in RTX_CAPABILITIES:
            raise HostError(
                f"TensorRT-RTX builds nothing for {target.name}",
                expected=f"compute capability {', '.join(RTX_CAPABILITIES)}",
                got=capability,
                fix=f"--builder {TENSORRT}, on the device itself",
            )
        require_settings(self.library(), settings)
        if (settings.refittable or settings.strip_weights) and this_compute_capability() is None:
            # 1.7.1: "MyelinCheckException: graph_jit.cpp: CHECK(status == CUDA_SUCCESS) failed"
            raise HostError(
                "TensorRT-RTX builds refittable engines only where it finds a GPU",
                why="it runs the code that will rearrange new weights",
                fix="build on a machine with a GPU, or leave --refittable and --strip-weights out",
            )
        return (capability,)

    def build(self, request: BuildRequest, progress: Progress) -> BuiltEngine:
        """See `Builder.build`. The engine is asked for its layers only where its own GPU is here."""
        return build_plan(self.library(), request, progress, inspect=this_compute_capability() in request.capabilities)


def _capability(target: Target, builder: str) -> str:
    if target.compute_capability is None:
        raise UsageError(
            f"{builder} builds for GPUs, and {target.name} is none",
            fix=f"leave --builder out: {target.engine} builds for it",
        )
    return f"{target.compute_capability:.1f}"
