"""Network -> plan file: streamed where the version can, so that the plan is not held in memory beside the weights."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import IO, Any, Optional

from motedge.files import atomic_open, write_chunks
from motedge.targets.builders.trt.library import Library

_CAPSULE = ctypes.pythonapi
_CAPSULE.PyCapsule_GetName.restype = ctypes.c_char_p
_CAPSULE.PyCapsule_GetName.argtypes = [ctypes.py_object]
_CAPSULE.PyCapsule_GetPointer.restype = ctypes.c_void_p
_CAPSULE.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _NoPlan(Exception):
    """The builder gave no plan; what was begun is removed."""


def write_plan(library: Library, builder: Any, network: Any, config: Any, out: Path) -> bool:
    """Builds and writes the plan, whole or not at all.

    Returns:
        False where the builder refused; its log says why.

    Raises:
        HostError: the disk is full.
    """
    try:
        with atomic_open(out) as stream:
            if library.row.stream_plan:
                _stream(library, builder, network, config, stream)
            else:
                plan = builder.build_serialized_network(network, config)
                if plan is None:
                    raise _NoPlan
                write_chunks(stream, memoryview(plan).cast("B"))
    except _NoPlan:
        return False
    return True


def _stream(library: Library, builder: Any, network: Any, config: Any, stream: IO[bytes]) -> None:
    writer = _make_writer(library.api, stream)
    done = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.error is not None:
        raise writer.error
    if not done:
        raise _NoPlan


def _make_writer(api: Any, stream: IO[bytes]) -> Any:
    """An IStreamWriter into a file. An error in it is kept: the library would only log it and write on."""

    class FileWriter(api.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IStreamWriter.__init__(self)
            self.error: Optional[OSError] = None

        def write(self, data: Any, size: Optional[int] = None) -> int:
            """`data` is bytes, or in bindings that say so in their signature a capsule of `size` bytes."""
            if self.error is not None:
                return 0
            view = memoryview(data) if size is None else _capsule_bytes(data, size)
            try:
                write_chunks(stream, view)
            except OSError as error:
                self.error = error
                return 0
            return len(view)

    return FileWriter()


def _capsule_bytes(data: Any, size: int) -> memoryview:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return memoryview(data)
    address = _CAPSULE.PyCapsule_GetPointer(data, _CAPSULE.PyCapsule_GetName(data))
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")
