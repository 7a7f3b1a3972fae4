"""The tensors of a tick in device memory, and the page-locked arrays through which they are filled and read."""

from __future__ import annotations

import dataclasses

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.device_engine import DeviceEngine, tensor_bytes
from motedge.runtime.engine import Array, FloatArray
from motedge.runtime.schedule import TRAIN_TIMESTEPS
from motedge.runtime.tables import EmbodimentWeights

WEIGHTS = ("action_in_weight", "action_in_bias", "action_out_weight", "action_out_bias")
BRANCHES = ("cond", "uncond")


class TickBuffers:
    """For one pair of shapes; planned once. Host arrays may be written only while nothing of a tick is under way."""

    def __init__(self, cuda: Cuda, gen: DeviceEngine, layout: StateLayout, tokens: int) -> None:
        """Allocates everything that the loop needs beside engines, prompts and solver.

        Args:
            cuda: where.
            gen: engine of gen_step; its contract plans the sizes.
            layout: shapes of the request.
            tokens: N, the generator's tokens.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for it.
        """
        self._cuda, self.layout, self.dtype = cuda, layout, gen.dtype
        frames, rows = layout.vision_shape[1], layout.action_shape[0]
        longest_prompt = gen.contract.profile["U"][2]
        sizes = tensor_bytes(gen.contract, gen.dtype, {"T": frames, "A": rows, "N": tokens, "U": longest_prompt})
        vectors = ("state", "v_cond", "v_uncond", "clean")
        # Page-locked first: it lives until the context is closed, so that nothing leaks when the block can't be had
        self.findings: Array = cuda.pinned((2 * TRAIN_TIMESTEPS,), np.uint32)
        self.noise: FloatArray = cuda.pinned((layout.noise_count,), np.float32)
        self.vision_noisy: FloatArray = cuda.pinned((frames,), np.float32)
        self.action_noisy: FloatArray = cuda.pinned((rows,), np.float32)
        self.action: FloatArray = cuda.pinned(layout.action_shape, np.float32)
        self.vision: FloatArray = cuda.pinned(layout.vision_shape, np.float32)
        self.device = PlannedBlock(
            cuda,
            {
                "noise": 4 * layout.noise_count,
                **dict.fromkeys(vectors, layout.nbytes),
                **{name: sizes[name] for name in ("vision_noisy", "action_noisy", "t", *WEIGHTS)},
                "findings": 4 * TRAIN_TIMESTEPS,
                # Slots for the K and V of each branch: captured graphs read them here, whichever prompt it is
                **{f"und_kv_{branch}": sizes["und_kv"] for branch in BRANCHES},
            },
            "tick buffers",
        )
        self._weights: dict[str, Array] = {}
        self._domain: object = None

    def clear(self, stream: Stream) -> None:
        """Zeros in every vector, gaps included: velocities fill only what is between the gaps."""
        for name in ("state", "v_cond", "v_uncond", "clean"):
            self._cuda.zero(self.pointer(name), self.layout.nbytes, stream)

    def pointer(self, name: str) -> int:
        """Address of a tensor."""
        return self.device.pointer(name)

    def action_pointer(self, vector: str) -> int:
        """Address of the action rows within a vector."""
        return self.pointer(vector) + self.layout.action_offset_bytes

    def solver(self) -> SolverBuffers:
        """The addresses that a solver needs."""
        return SolverBuffers(**{field.name: self.pointer(field.name) for field in dataclasses.fields(SolverBuffers)})

    def put(self, destination: int, source: Array, stream: Stream) -> None:
        """Enqueues an upload of a page-locked array."""
        self._cuda.copy(destination, source.ctypes.data, source.nbytes, stream)

    def get(self, destination: Array, source: int, stream: Stream) -> None:
        """Enqueues a download into a page-locked array."""
        self._cuda.copy(destination.ctypes.data, source, destination.nbytes, stream)

    def use_embodiment(self, weights: EmbodimentWeights, stream: Stream) -> None:
        """Uploads an embodiment's projections unless they are there already."""
        if self._domain is weights:
            return
        values = weights.in_weight, weights.in_bias, weights.out_weight, weights.out_bias
        for name, value in zip(WEIGHTS, values):
            staging = self._weights.get(name)
            if staging is None:
                staging = self._weights[name] = self._cuda.pinned(value.shape, np.float32)
            staging[...] = value
            self.put(self.pointer(name), staging, stream)
        self._domain = weights

    def free(self) -> None:
        """Gives the device memory back; harmless when repeated."""
        self.device.free()
