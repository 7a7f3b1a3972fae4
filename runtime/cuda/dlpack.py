"""Reads DLPack capsules with ctypes, so that arrays of any library are taken without that library.

Layout: https://dmlc.github.io/dlpack/latest/c_api.html, the unversioned DLManagedTensor, which every producer gives to
a consumer that asks for nothing newer.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import ObservationError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
_NAMES = {CPU: "host memory", CUDA: "GPU", CUDA_HOST: "page-locked host memory", CUDA_MANAGED: "managed memory"}
# DLPack's and __cuda_array_interface__'s number for the legacy default stream
LEGACY_STREAM = 1
_UNSIGNED = 1


@dataclass(frozen=True)
class DeviceArray:
    """An array in memory that a GPU reads."""

    pointer: int
    shape: tuple[int, ...]
    # Bytes; None: C order without gaps
    strides: Optional[tuple[int, ...]]
    # "uint8", or whatever it is instead
    dtype: str
    # CUstream after whose present work the content is complete; None: it is
    producer_stream: Optional[int]
    # Keeps the memory
    owner: Any


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """DLTensor, with which a DLManagedTensor starts."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def array_of_dlpack(source: Any, ordinal: int) -> DeviceArray:
    """Takes an array that offers `__dlpack__` and `__dlpack_device__`.

    The capsule is kept as it is: its own destructor tells the producer when nobody needs the memory any more.

    Args:
        source: The array.
        ordinal: The GPU on which it must be.

    Raises:
        ObservationError: it is elsewhere, or the producer refuses.
    """
    kind, number = (int(value) for value in source.__dlpack_device__())
    where = _NAMES.get(kind, f"a device of kind {kind}")
    if kind == CPU:
        raise ObservationError(
            "this frame is in host memory",
            expected=f"memory that GPU {ordinal} reads",
            got=type(source).__name__,
            fix="give it to Observation as a numpy array",
        )
    if kind not in (CUDA, CUDA_HOST, CUDA_MANAGED):
        raise ObservationError("this frame is in no memory of CUDA's", got=where)
    if kind == CUDA and number != ordinal:
        raise ObservationError("this frame is on another GPU", expected=f"GPU {ordinal}", got=f"GPU {number}")
    on_device = kind != CUDA_HOST
    try:
        # The producer makes the legacy stream wait for its work; DeviceFrame.wait_on makes ours wait for that
        capsule = source.__dlpack__(stream=LEGACY_STREAM) if on_device else source.__dlpack__()
    except (BufferError, TypeError, ValueError, RuntimeError) as error:
        raise ObservationError("this frame's library does not hand it over", got=str(error), why=where) from error
    tensor = _tensor(capsule)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    code, bits, lanes = tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes
    is_bytes = (code, bits, lanes) == (_UNSIGNED, 8, 1)
    size = max(bits // 8, 1) * lanes
    return DeviceArray(
        pointer=int(tensor.data or 0) + int(tensor.byte_offset),
        shape=shape,
        strides=tuple(size * tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None,
        dtype="uint8" if is_bytes else f"DLPack type {code} of {bits} bits",
        producer_stream=LEGACY_STREAM if on_device else None,
        owner=capsule,
    )


def _tensor(capsule: Any) -> _Tensor:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    try:
        address = get(capsule, b"dltensor")
    except ValueError as error:
        raise ObservationError("this frame's DLPack capsule was used before, or is none", got=str(error)) from error
    return _Tensor.from_address(address)
