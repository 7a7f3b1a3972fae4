"""Camera frames that are on the GPU already, taken where they lie: by `__cuda_array_interface__` or DLPack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.errors import ObservationError, UsageError, closest
from motedge.runtime.cuda.dlpack import DeviceArray, array_of_dlpack
from motedge.runtime.cuda.interface import Cuda, Stream

# The kernels know them by their place in here
FORMATS = ("rgb", "bgr", "nv12")


@dataclass(frozen=True)
class DeviceFrame:
    """One frame in memory that the GPU can read. Pixels are 8 bits: RGB or BGR interleaved, or NV12.

    Make it of an array with `device_frame`, or directly where all that is known is an address.

    Raises:
        ObservationError: no address or no pixels.
        UsageError: unknown format.
    """

    # Device address of the first pixel, or that of page-locked host memory
    pointer: int
    # Pixels
    rows: int
    columns: int
    # One of FORMATS. It can't be seen in the pixels: a wrong one misleads the policy
    format: str = "rgb"
    # From one row to the next; None: without a gap. Of NV12, the same for both planes
    pitch_bytes: Optional[int] = None
    # Of NV12: "bt601" or "bt709"
    matrix: str = "bt709"
    # Of NV12: luma 0 to 255 instead of 16 to 235
    full_range: bool = False
    # Of NV12: where the second plane starts; None: right after the first
    chroma_offset_bytes: Optional[int] = None
    # CUstream on which the frame is written; None: it is complete already
    producer_stream: Optional[int] = None
    # What must stay alive for the memory to stay
    owner: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"unknown pixel format {self.format!r}", fix=closest(self.format, FORMATS))
        if self.pointer <= 0 or min(self.rows, self.columns) < 1:
            raise ObservationError(
                "a frame on the GPU is empty",
                expected="an address and at least one pixel",
                got=f"{self.columns} x {self.rows} pixels at {self.pointer:#x}",
            )

    def wait_on(self, cuda: Cuda, stream: Stream) -> None:
        """Makes later work of `stream` wait until the frame is complete. The host does not wait."""
        if self.producer_stream is not None:
            cuda.wait_for_producer(stream, self.producer_stream)


def device_frame(
    source: Any, format: str = "rgb", ordinal: int = 0, matrix: str = "bt709", full_range: bool = False
) -> DeviceFrame:
    """Takes an array on the GPU as a frame, without a copy.

    Args:
        source: Has `__dlpack__` (torch, CuPy, VPI, CV-CUDA) or `__cuda_array_interface__` (jetson-utils, Numba). It
            must not be overwritten until the tick that sees it is done. uint8 [rows, columns, 3], or for "nv12"
            [3/2 rows, columns], luma above chroma.
        format: One of FORMATS.
        ordinal: The GPU that the policy runs on.
        matrix: Of NV12; see DeviceFrame.
        full_range: Of NV12; see DeviceFrame.

    Raises:
        ObservationError: not on this GPU, not uint8, or laid out in another way; says which.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown pixel format {format!r}", fix=closest(format, FORMATS))
    array = _array_of(source, ordinal)
    what = f"the {format} frame on the GPU"
    if array.dtype != "uint8":
        fix = "convert it on the GPU, 0 to 255"
        raise ObservationError(f"{what} has the wrong type", expected="uint8", got=array.dtype, fix=fix)
    rows, columns, pitch = _nv12_layout(what, array) if format == "nv12" else _interleaved_layout(what, array)
    return DeviceFrame(
        pointer=array.pointer,
        rows=rows,
        columns=columns,
        format=format,
        pitch_bytes=pitch,
        matrix=matrix,
        full_range=full_range,
        producer_stream=array.producer_stream,
        owner=array.owner,
    )


def _array_of(source: Any, ordinal: int) -> DeviceArray:
    # DLPack first: it says on which device the memory is, and orders the producer's work before ours
    if hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__"):
        return array_of_dlpack(source, ordinal)
    interface = getattr(source, "__cuda_array_interface__", None)
    if isinstance(interface, dict):
        return _array_of_interface(source, interface)
    raise ObservationError(
        "this is no frame on a GPU",
        expected="an array with __dlpack__ or __cuda_array_interface__, or a DeviceFrame",
        got=type(source).__name__,
        fix="a frame in host memory goes into Observation as a numpy array",
    )


def _array_of_interface(source: Any, interface: dict[str, Any]) -> DeviceArray:
    """Versions 2 and 3 of https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html."""
    what = f"the __cuda_array_interface__ of {type(source).__name__}"
    try:
        shape = tuple(int(size) for size in interface["shape"])
        typestr, pointer = str(interface["typestr"]), int(interface["data"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ObservationError(f"{what} can't be read", expected="shape, typestr and data", got=interface) from error
    if interface.get("mask") is not None:
        raise ObservationError(f"{what} has a mask", expected="all pixels")
    stream = interface.get("stream")
    if stream == 0:
        raise ObservationError(f"{what} names stream 0", why="the interface forbids it as ambiguous", fix="1, or None")
    strides = interface.get("strides")
    # One byte has no byte order: "|u1" and "<u1" are the same
    dtype = "uint8" if typestr.lstrip("|<>=") == "u1" else typestr
    return DeviceArray(
        pointer=pointer,
        shape=shape,
        strides=None if strides is None else tuple(int(stride) for stride in strides),
        dtype=dtype,
        producer_stream=None if stream is None else int(stream),
        owner=source,
    )


def _interleaved_layout(what: str, array: DeviceArray) -> tuple[int, int, int]:
    """Rows, columns and pitch in bytes."""
    if len(array.shape) != 3 or array.shape[2] != 3:
        fix = "channels come last: permute(1, 2, 0).contiguous()" if array.shape[:1] == (3,) else None
        if array.shape[2:] == (4,):
            fix = "drop the alpha channel with a conversion on the GPU"
        raise ObservationError(
            f"{what} has the wrong shape", expected="[rows, columns, 3]", got=list(array.shape), fix=fix
        )
    rows, columns, _ = array.shape
    return rows, columns, _pitch(what, array, 3 * columns, (3, 1))


def _nv12_layout(what: str, array: DeviceArray) -> tuple[int, int, int]:
    shape = array.shape[:2] if array.shape[2:] == (1,) else array.shape
    if len(shape) != 2 or shape[0] % 3 or shape[1] % 2:
        raise ObservationError(
            f"{what} has the wrong shape",
            expected="[3/2 rows, columns]: luma, then half as many rows of chroma; both sides even",
            got=list(array.shape),
            fix="where only an address is known, make a DeviceFrame of it",
        )
    return shape[0] * 2 // 3, shape[1], _pitch(what, array, shape[1], (1, 1)[: len(array.shape) - 1])


def _pitch(what: str, array: DeviceArray, row_bytes: int, inner: tuple[int, ...]) -> int:
    if array.strides is None:
        return row_bytes
    if array.strides[0] < row_bytes or array.strides[1:] != inner:
        raise ObservationError(
            f"{what} is laid out in another way",
            expected=f"strides of ({row_bytes} or more, {', '.join(map(str, inner))}) bytes",
            got=array.strides,
            fix="make it contiguous on the GPU",
        )
    return array.strides[0]
