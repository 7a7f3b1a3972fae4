"""Camera frames on the GPU -> the VAE encoder's input, without the host: one launch for all cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from motedge.errors import ContractError, ObservationError, UsageError, closest
from motedge.runtime.cuda import Cuda, DeviceMemory, Stream
from motedge.runtime.cuda.interface import KernelArgument
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.staging import Staging
from motedge.runtime.engine import Array
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.ingest_plan import IngestPlan
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.policy.resize import bilinear_taps
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

_BLOCK = (32, 8)
_PURPOSE = "camera ingest"


class ImageIngest:
    """A composed RGB image on the GPU -> the VAE encoder's input: resized, padded, normalised."""

    def __init__(
        self,
        cuda: Cuda,
        library: KernelLibrary,
        source: FrameSpec,
        content: tuple[int, int],
        canvas: tuple[int, int],
        stream: Stream,
    ) -> None:
        """Uploads the filter's tables.

        Args:
            cuda: where.
            library: the compiled kernels.
            source: of the image; RGB.
            content: rows and columns of the image on the canvas.
            canvas: rows and columns of the VAE's input.
            stream: for the upload, which is waited for.
        """
        if source.format != "rgb":
            raise ContractError("a composed image is RGB", expected="rgb", got=source.format)
        self._cuda, self._source = cuda, source
        self._canvas = canvas_arguments(content, canvas)
        self._grid = -(-content[1] // _BLOCK[0]), -(-content[0] // _BLOCK[1])
        self._kernel = library.kernel("motedge_ingest_image")
        self._memory: Optional[PlannedBlock] = None
        self._tables = [0] * 6
        if (source.rows, source.columns) == content:
            return
        tables: list[Array] = []
        for size, target in ((source.rows, content[0]), (source.columns, content[1])):
            before, after, weight = bilinear_taps(size, target)
            tables += [before.astype(np.int32), after.astype(np.int32), weight]
        self._memory, self._tables = uploaded(cuda, library.staging, tables, stream)

    def enqueue(self, image: int, out: int, stream: Stream) -> None:
        """Enqueues it: `image` is the device address of the pixels, `out` that of fp32 [1, 3, Y, X]."""
        arguments = [
            np.uint64(image),
            np.int32(self._source.pitch),
            *(np.uint64(address) for address in self._tables),
            np.uint64(out),
            *self._canvas,
        ]
        self._cuda.launch(self._kernel, self._grid, _BLOCK, arguments, stream)

    def close(self) -> None:
        """Frees the tables; harmless when repeated."""
        if self._memory is not None:
            self._memory.free()
            self._memory = None


class CameraIngest:
    """Frames of up to three cameras on the GPU -> the VAE encoder's input.

    Equal, bit for bit, to `compose_views`, `resize_bilinear`, `pad_canvas` and `normalise` of `motedge.runtime.policy`
    on the RGB images, which `motedge.runtime.kernels.yuv` defines for NV12.
    """

    def __init__(
        self,
        cuda: Cuda,
        library: KernelLibrary,
        sources: Mapping[str, FrameSpec],
        content: tuple[int, int],
        canvas: tuple[int, int],
        stream: Stream,
    ) -> None:
        """Plans for these cameras and uploads the tables. One launch a tick, two where the content has another size.

        Args:
            cuda: where.
            library: the compiled kernels.
            sources: view name -> how its frames lie in memory; other views are black.
            content: rows and columns of the composed image on the canvas.
            canvas: rows and columns of the VAE's input.
            stream: for the upload, which is waited for.

        Raises:
            ObservationError: an unknown view, none at all, or a frame that can't be scaled into its view.
            ContractError: the content is larger than the canvas.
        """
        for name in sources:
            if name not in VIEW_NAMES:
                raise ObservationError(f"unknown camera view {name!r}", fix=closest(name, VIEW_NAMES))
        if not sources:
            raise ObservationError("there is no camera", expected=f"at least one of {', '.join(VIEW_NAMES)}")
        self._cuda, self._sources = cuda, dict(sources)
        self._plan = IngestPlan.of(sources)
        self._kernel = library.kernel("motedge_ingest_cameras")
        canvas_arguments(content, canvas)
        self._canvas = canvas_arguments(COMPOSED_SIZE, canvas if content == COMPOSED_SIZE else COMPOSED_SIZE)
        self._memory: Optional[PlannedBlock] = None
        tables = self._plan.views, self._plan.tables
        self._memory, (self._views, self._tables) = uploaded(cuda, library.staging, tables, stream)
        self._scratch: Optional[DeviceMemory] = None
        self._resize: Optional[ImageIngest] = None
        if content == COMPOSED_SIZE:
            return
        try:
            self._scratch = cuda.allocate(3 * COMPOSED_SIZE[0] * COMPOSED_SIZE[1], _PURPOSE)
            self._resize = ImageIngest(cuda, library, FrameSpec(*COMPOSED_SIZE), content, canvas, stream)
        except BaseException:
            self.close()
            raise

    def enqueue(self, frames: Mapping[str, int], out: int, stream: Stream) -> tuple[str, ...]:
        """Enqueues it; returns the views that are black, in the order of VIEW_NAMES.

        Args:
            frames: view name -> device address of its first pixel. They must stay as they are until the stream is done.
            out: device address of fp32 [1, 3, Y, X].
            stream: where.

        Raises:
            ObservationError: no frame at all, or one of a camera that was not planned for.
        """
        missing = tuple(name for name in VIEW_NAMES if name not in frames)
        unplanned = [name for name in frames if name not in self._sources]
        if unplanned or len(missing) == len(VIEW_NAMES):
            raise ObservationError(
                "these are not the cameras that were planned for",
                expected=f"one or more of {', '.join(self._sources)}",
                got=", ".join(frames) or "none",
            )
        if self._memory is None:
            raise UsageError("the camera ingest was closed", fix="make another one")
        composed = 0 if self._scratch is None else self._scratch.pointer
        addresses: list[KernelArgument] = [np.uint64(frames.get(name, 0)) for name in self._plan.names]
        arguments = [
            *addresses,
            np.uint64(self._views),
            np.int32(len(self._plan.names)),
            np.uint64(self._tables),
            np.uint64(composed),
            np.uint64(0 if composed else out),
            *self._canvas,
        ]
        block = _BLOCK[0], self._plan.tile_rows
        self._cuda.launch(self._kernel, self._plan.blocks, block, arguments, stream, self._plan.shared_bytes)
        if self._resize is not None:
            self._resize.enqueue(composed, out, stream)
        return missing

    def close(self) -> None:
        """Frees tables and scratch; harmless when repeated."""
        if self._memory is not None:
            self._memory.free()
        if self._scratch is not None:
            self._scratch.free()
        if self._resize is not None:
            self._resize.close()
        self._memory = self._scratch = self._resize = None


def canvas_arguments(content: tuple[int, int], canvas: tuple[int, int]) -> list[KernelArgument]:
    """Sizes of canvas and content, and whether the padding repeats the edge, as `pad_canvas` decides it.

    Raises:
        ContractError: the content is larger than the canvas, or empty.
    """
    padding = canvas[0] - content[0], canvas[1] - content[1]
    if min(*padding, content[0] - 1, content[1] - 1) < 0:
        raise ContractError("the image does not fit the canvas", expected=f"1 to {canvas} (rows, columns)", got=content)
    repeat_edge = padding[0] >= content[0] or padding[1] >= content[1]
    return [np.int32(value) for value in (*canvas, *content, repeat_edge)]


def uploaded(cuda: Cuda, staging: Staging, tables: Sequence[Any], stream: Stream) -> tuple[PlannedBlock, list[int]]:
    """Copies arrays into one block of device memory; returns it and where each lies. Waits for the copies.

    Raises:
        OutOfDeviceMemoryError: no room; nothing stays allocated.
    """
    block = PlannedBlock(cuda, {str(i): table.nbytes for i, table in enumerate(tables)}, _PURPOSE)
    addresses = [block.pointer(str(i)) for i in range(len(tables))]
    try:
        for address, table in zip(addresses, tables):
            staging.upload(address, table, stream)
    except BaseException:
        block.free()
        raise
    return block, addresses
