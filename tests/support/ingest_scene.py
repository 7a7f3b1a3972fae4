"""Camera frames in some CUDA's memory (simulated or real), and what the numpy chain makes of the same pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.ingest import CameraIngest, ImageIngest
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.yuv import nv12_to_rgb
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.views import compose_views


def random_frame(spec: FrameSpec, seed: int) -> np.ndarray:
    """Bytes of a frame, with anything between rows and planes: noise with flat parts, so that extremes occur."""
    random = np.random.RandomState(seed)
    frame = random.randint(0, 256, spec.nbytes).astype(np.uint8)
    flat = random.randint(0, 256, 2)
    frame[spec.nbytes // 3 : spec.nbytes // 2] = random.choice(flat, spec.nbytes // 2 - spec.nbytes // 3)
    return frame


def rgb_of(spec: FrameSpec, frame: np.ndarray) -> np.ndarray:
    """The frame's RGB image, through numpy."""
    if spec.format != "nv12":
        image = _rows(frame, spec.rows, spec.row_bytes, spec.pitch).reshape(spec.rows, spec.columns, 3)
        return image if spec.format == "rgb" else image[..., ::-1]
    luma = _rows(frame, spec.rows, spec.columns, spec.pitch)
    chroma = _rows(frame[spec.chroma_offset :], spec.rows // 2, spec.columns, spec.pitch)
    return nv12_to_rgb(luma, chroma.reshape(spec.rows // 2, spec.columns // 2, 2), spec.matrix, spec.full_range)


def reference(images: Mapping[str, np.ndarray], content: tuple[int, int], canvas: tuple[int, int]) -> np.ndarray:
    """What the policy on the host makes of the images: fp32 [1, 3, Y, X]."""
    composed, _ = compose_views(images)
    return normalise(pad_canvas(resize_bilinear(composed, content), canvas))


def ingested(
    cuda: Any,
    library: KernelLibrary,
    sources: Mapping[str, FrameSpec],
    frames: Mapping[str, np.ndarray],
    content: tuple[int, int],
    canvas: tuple[int, int],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """What the kernel makes of the frames, and the views that it calls missing. Frees all that it took."""
    stream = cuda.stream()
    ingest = CameraIngest(cuda, library, sources, content, canvas, stream)
    held = {name: uploaded_frame(cuda, frame, stream) for name, frame in frames.items()}
    out = Out(cuda, canvas)
    missing = ingest.enqueue({name: memory.pointer for name, memory in held.items()}, out.memory.pointer, stream)
    result = out.fetch(stream)
    for memory in held.values():
        memory.free()
    ingest.close()
    return result, missing


def ingested_image(
    cuda: Any,
    library: KernelLibrary,
    spec: FrameSpec,
    frame: np.ndarray,
    content: tuple[int, int],
    canvas: tuple[int, int],
) -> np.ndarray:
    """What the kernel makes of a composed image. Frees all that it took."""
    stream = cuda.stream()
    ingest = ImageIngest(cuda, library, spec, content, canvas, stream)
    memory, out = uploaded_frame(cuda, frame, stream), Out(cuda, canvas)
    ingest.enqueue(memory.pointer, out.memory.pointer, stream)
    result = out.fetch(stream)
    memory.free()
    ingest.close()
    return result


def uploaded_frame(cuda: Any, frame: np.ndarray, stream: Any) -> Any:
    staging = cuda.pinned((frame.size,), np.uint8)
    staging[:] = frame
    memory = cuda.allocate(frame.size, "test")
    cuda.copy(memory.pointer, staging.ctypes.data, frame.size, stream)
    stream.synchronize()
    return memory


class Out:
    """The VAE encoder's input in device memory."""

    def __init__(self, cuda: Any, canvas: tuple[int, int]) -> None:
        self._cuda = cuda
        self._host = cuda.pinned((1, 3, *canvas), np.float32)
        self.memory = cuda.allocate(self._host.nbytes, "test")

    def fetch(self, stream: Any) -> np.ndarray:
        self._cuda.copy(self._host.ctypes.data, self.memory.pointer, self._host.nbytes, stream)
        stream.synchronize()
        self.memory.free()
        return self._host.copy()


def _rows(flat: np.ndarray, rows: int, row_bytes: int, pitch: int) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(flat, (rows, row_bytes), (pitch, 1)).copy()
