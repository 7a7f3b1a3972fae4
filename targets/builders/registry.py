"""Which builder makes engines for which target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Optional

from motedge.errors import UsageError, closest
from motedge.targets.builders.builder import Builder
from motedge.targets.catalog import Target


def _tensorrt() -> Builder:
    from motedge.targets.builders.trt.builders import TensorRtBuilder

    return TensorRtBuilder()


def _tensorrt_rtx() -> Builder:
    from motedge.targets.builders.trt.builders import TensorRtRtxBuilder

    return TensorRtRtxBuilder()


def _onnxruntime() -> Builder:
    from motedge.targets.builders.ort.builder import OnnxRuntimeBuilder

    return OnnxRuntimeBuilder()


# Each made when asked for: what it needs is imported then
BUILDERS: Mapping[str, Callable[[], Builder]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "onnxruntime": _onnxruntime,
}


def make_builder(name: str) -> Builder:
    """A builder by its name; UsageError names the closest for an unknown one."""
    if name not in BUILDERS:
        raise UsageError(f"unknown builder {name!r}", fix=closest(name, BUILDERS))
    return BUILDERS[name]()


def builder_for(target: Target, name: Optional[str] = None) -> Builder:
    """The builder that the user named, or the target's own."""
    return make_builder(target.engine if name is None else name)
