"""Backends: the libraries that run graphs. `open_engine` is the way in; no library is imported before it is used."""

from motedge.runtime.backends.registry import (
    BACKENDS,
    DEVICE_BACKENDS,
    BackendCapability,
    choose_variant,
    open_engine,
    require_recipe,
)

__all__ = ["BACKENDS", "DEVICE_BACKENDS", "BackendCapability", "choose_variant", "open_engine", "require_recipe"]
