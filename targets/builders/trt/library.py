"""The library that builds: that of the runtime, and for which targets a release that is there for tests may build."""

from __future__ import annotations

import logging

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt import library as engine_library
from motedge.runtime.backends.tensorrt.library import INSTALL, TENSORRT, TENSORRT_RTX, Library, describe_library
from motedge.targets.catalog import Target

__all__ = ["TENSORRT", "TENSORRT_RTX", "Library", "describe_library", "find_library", "require_for"]
# Kind of target, on whose machines whole wheels of old releases can be tried
_TRIED_ON = "datacenter"
_log = logging.getLogger(__name__)


def find_library(name: str) -> Library:
    """Imports the library; HostError: not installed, installed but not to be loaded, or of no supported version."""
    return engine_library.find_library(name, "it builds the engines")


def require_for(library: Library, target: Target) -> None:
    """HostError where a release that is there for tests would build for a device; a server's GPU may try it."""
    if not library.row.test_only:
        return
    if target.kind != _TRIED_ON:
        raise HostError(
            f"TensorRT {library.version} is too old to build for a device",
            expected="10.3 or later",
            got=library.version,
            why="it builds weakly typed networks alone, in which layers fall back to fp32 unseen",
            fix=INSTALL[library.name],
        )
    _log.warning("TensorRT %s is there to try code with: its engines are weakly typed, and slow", library.version)
