"""Messages of a policy server: msgpack, with numpy arrays as maps of four keys. Nothing in one is ever executed.

The framing is the public one of openpi's servers and clients:

    array    {b"__ndarray__": true, b"data": bytes in C order, b"dtype": "<f4", b"shape": [rows, columns]}
    scalar   {b"__npgeneric__": true, b"data": number, b"dtype": "<f4"}

Booleans, integers and floats of 1 to 8 bytes are taken; objects, text, dates, complex and structured types are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from motedge.errors import MissingPackageError, MotedgeError

if TYPE_CHECKING:
    from types import ModuleType

_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
# Byte order, kind, bytes of one element. Only what matches is shown to numpy, whose own parser takes far more
_DTYPE_FORM = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_DIMENSIONS_MAX = 8


class WireError(MotedgeError):
    """A message that can't be read, or is larger than allowed, or a value that can't be sent."""


@dataclass(frozen=True)
class WireLimits:
    """What a message may hold; checked before memory is taken for it."""

    # A whole message
    message_bytes: int = 16 << 20
    # One text
    text_bytes: int = 64 << 10
    # Entries of one list or map; arrays count as one value
    entries: int = 1024
    # Lists and maps of a message together
    containers: int = 512


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        WireError: it holds something else than maps, lists, text, bytes, numbers, None, and arrays of numbers.
        MissingPackageError: msgpack is not installed.
    """
    try:
        packed: bytes = _msgpack().packb(message, default=_encode)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError("the message can't be sent", why=str(error)) from error
    return packed


def unpack(data: bytes, limits: WireLimits = WireLimits()) -> Any:
    """The message of some bytes. Arrays lie in memory of their own, in C order, and are read-only.

    Raises:
        WireError: no msgpack, something missing or left over, another array than above, or a limit passed.
        MissingPackageError: msgpack is not installed.
    """
    if len(data) > limits.message_bytes:
        raise WireError("the message is too large", expected=f"at most {limits.message_bytes} bytes", got=len(data))
    reader = _Reader(limits.containers)
    try:
        return _msgpack().unpackb(
            data,
            object_hook=reader.map,
            list_hook=reader.list,
            ext_hook=_refuse_extension,
            max_str_len=limits.text_bytes,
            max_bin_len=limits.message_bytes,
            max_array_len=limits.entries,
            max_map_len=limits.entries,
            max_ext_len=0,
        )
    # msgpack's own errors are ValueErrors; a map's key that can't be one is a TypeError
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(
            "the message can't be read",
            expected="one msgpack value within the limits",
            got=f"{len(data)} bytes: {error or type(error).__name__}",
        ) from error


class _Reader:
    """Hooks for one message; they count what it is made of."""

    def __init__(self, containers: int) -> None:
        self._left = self._containers = containers

    def list(self, value: list[Any]) -> list[Any]:
        self._count()
        return value

    def map(self, value: dict[Any, Any]) -> Any:
        self._count()
        if _ARRAY in value:
            return _array(value)
        return _scalar(value) if _SCALAR in value else value

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise WireError("the message has too many parts", expected=f"at most {self._containers} lists and maps")


def _array(value: Mapping[Any, Any]) -> np.ndarray[Any, Any]:
    data, shape, dtype = value.get(_DATA), value.get(_SHAPE), _dtype(value.get(_DTYPE))
    if not isinstance(data, bytes):
        raise WireError("an array without its bytes", expected="b'data'", got=type(data).__name__)
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS_MAX or not all(_is_length(n) for n in shape):
        raise WireError(
            "an array without a shape", expected=f"up to {_DIMENSIONS_MAX} whole numbers in b'shape'", got=repr(shape)
        )
    # Of Python's integers, which don't overflow
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise WireError(
            "an array's bytes don't fit its shape", expected=f"{needed} bytes of {dtype} {shape}", got=len(data)
        )
    try:
        return np.frombuffer(data, dtype).reshape(shape) if data else np.empty(shape, dtype)
    except ValueError as error:
        raise WireError("an array without a shape", got=repr(shape), why=str(error)) from error


def _scalar(value: Mapping[Any, Any]) -> Any:
    number, dtype = value.get(_DATA), _dtype(value.get(_DTYPE))
    if not isinstance(number, (bool, int, float)):
        raise WireError("a scalar that is no number", expected="a number in b'data'", got=type(number).__name__)
    try:
        with np.errstate(over="ignore"):
            return dtype.type(number)
    except (ValueError, OverflowError, TypeError) as error:
        raise WireError("a scalar that does not fit its type", got=f"{number} as {dtype}") from error


def _dtype(name: Any) -> np.dtype[Any]:
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str) or _DTYPE_FORM.fullmatch(text) is None:
        raise WireError(
            "an array of a type that is not taken",
            expected='booleans, integers or floats, such as "<f4" or "|u1"',
            got=repr(name)[:80],
            why="objects and structured types could hide code",
        )
    return np.dtype(text)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _encode(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and _DTYPE_FORM.fullmatch(value.dtype.str) is None:
        raise TypeError(f"an array of type {value.dtype}: only booleans, integers and floats can be sent")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, _DATA: _buffer(value), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    if isinstance(value, np.generic):
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}
    raise TypeError(f"{type(value).__name__} can't be sent")


def _buffer(array: np.ndarray[Any, Any]) -> Any:
    """The array's bytes in C order, not copied where they lie so already."""
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""


def _refuse_extension(code: int, data: bytes) -> Any:
    raise WireError("the message holds an extension type", expected="plain msgpack", got=f"extension {code}")


def _msgpack() -> ModuleType:
    try:
        import msgpack
    except ImportError as error:
        raise MissingPackageError("msgpack", extra="client", purpose="to talk to a policy server") from error
    found: ModuleType = msgpack
    return found
