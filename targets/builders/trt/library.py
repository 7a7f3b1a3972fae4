"""The library that builds: that of the runtime, but none that is there to be tested with alone."""

from __future__ import annotations

from typing import Any

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt import library as engine_library
from motedge.runtime.backends.tensorrt.library import INSTALL, TENSORRT, TENSORRT_RTX, Library

__all__ = ["TENSORRT", "TENSORRT_RTX", "Library", "describe_library", "find_library"]


def find_library(name: str) -> Library:
    """Imports the library.

    Raises:
        HostError: not installed, installed but not to be loaded, or of a version that does not build for devices.
    """
    return _require_builder(engine_library.find_library(name, "it builds the engines"))


def describe_library(name: str, api: Any) -> Library:
    """The library behind an imported module; HostError for a version that does not build for devices."""
    return _require_builder(engine_library.describe_library(name, api))


def _require_builder(library: Library) -> Library:
    if library.row.test_only:
        raise HostError(
            f"TensorRT {library.version} is too old to build for a device",
            expected="10.3 or later",
            got=library.version,
            why="it builds weakly typed networks alone, in which layers fall back to fp32 unseen",
            fix=INSTALL[library.name],
        )
    return library
