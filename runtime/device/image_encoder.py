"""vae_encoder on the device: from the canvas to the clean first frame of the state, never on the host."""

from __future__ import annotations

from typing import Optional

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.buffers import TickBuffers
from motedge.runtime.device.captured import Captured
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceContext, DeviceEngine, tensor_bytes
from motedge.runtime.engine import FloatArray

GRAPH = "vae_encoder"


class ImageEncoder:
    """One context of vae_encoder on fixed buffers, captured in a CUDA graph of its own."""

    def __init__(
        self, cuda: Cuda, engine: DeviceEngine, workspace: Workspace, *, refusal: Optional[str] = None
    ) -> None:
        """`refusal`: why not to capture; None asks the engine."""
        self._cuda, self._engine, self._workspace, self._refusal = cuda, engine, workspace, refusal
        contract = engine.contract
        sizes = tensor_bytes(contract, engine.dtype, {})
        self._block = PlannedBlock(cuda, {name: sizes[name] for name in ("image", "latent")}, "image and latent")
        shape = contract.tensor("image").shape(contract.sizes)
        # fp32 [1, 3, Y, X], -1 to 1: for images that are made ready on the host
        self.canvas: FloatArray = cuda.pinned(shape, np.float32)
        self._context: Optional[DeviceContext] = None
        self._work: Optional[Captured] = None
        self._generation = -1

    @property
    def canvas_pointer(self) -> int:
        """Where the image lies on the device, fp32 [1, 3, Y, X]."""
        return self._block.pointer("image")

    @property
    def latent_channels(self) -> int:
        """C."""
        return self._engine.contract.sizes["C"]

    @property
    def refusal(self) -> Optional[str]:
        """Why it is launched piece by piece for good; None where it is one CUDA graph, or will be."""
        return None if self._work is None else self._work.refusal

    def upload(self, stream: Stream) -> None:
        """Enqueues the upload of `canvas`."""
        self._cuda.copy(self.canvas_pointer, self.canvas.ctypes.data, self.canvas.nbytes, stream)

    def download(self, stream: Stream) -> None:
        """Fills `canvas` with what lies on the device, and waits for it."""
        self._cuda.copy(self.canvas.ctypes.data, self.canvas_pointer, self.canvas.nbytes, stream)
        stream.synchronize()

    def encode(self, stream: Stream) -> None:
        """Enqueues the encoder on the image that lies on the device."""
        if self._work is None or self._generation != self._workspace.generation:
            self._prepare()
        if self._work is not None:
            self._work.launch(stream)

    def place(self, buffers: TickBuffers, stream: Stream) -> None:
        """Enqueues the latent, [C, 1, h, w], into frame 0 of the clean values, [C, T, h, w]."""
        channels, frames, rows, columns = buffers.layout.vision_shape
        frame = 4 * rows * columns
        latent, clean = self._block.pointer("latent"), buffers.pointer("clean")
        self._cuda.copy_rows(clean, frames * frame, latent, frame, frame, channels, stream)

    def drop(self) -> None:
        """Frees context and graph; the next encoding makes them anew."""
        if self._work is not None:
            self._work.close()
            self._work = None
        if self._context is not None:
            self._context.close()
            self._context = None

    def close(self) -> None:
        """Frees everything but the engine; harmless when repeated."""
        self.drop()
        self._block.free()

    def _prepare(self) -> None:
        self.drop()
        context = self._context = self._engine.context({})
        self._workspace.lend(context)
        self._generation = self._workspace.generation
        context.bind("image", self.canvas_pointer)
        context.bind("latent", self._block.pointer("latent"))
        self._work = Captured(
            self._cuda, "the image encoder", context.enqueue, self._refusal or context.capture_refusal
        )
