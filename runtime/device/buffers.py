"""The tensors of a tick in device memory, and the page-locked arrays through which they are filled and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.pinned_arena import PinnedArena
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.device_engine import DeviceEngine, tensor_bytes
from motedge.runtime.engine import Array
from motedge.runtime.schedule import TRAIN_TIMESTEPS
from motedge.runtime.tables import EmbodimentWeights

WEIGHTS = ("action_in_weight", "action_in_bias", "action_out_weight", "action_out_bias")
BRANCHES = ("cond", "uncond")
# Masks of the modalities, of which a graph has those that it generates
MASKS = ("vision_noisy", "action_noisy", "sound_noisy")


class TickBuffers:
    """For one set of shapes; planned once. Host arrays may be written only while nothing of a tick is under way."""

    def __init__(
        self,
        cuda: Cuda,
        gen: DeviceEngine,
        layout: StateLayout,
        dims: Mapping[str, int],
        arena: Optional[PinnedArena] = None,
    ) -> None:
        """Allocates everything that the loop needs beside engines, prompts and solver.

        Args:
            cuda: where.
            gen: engine of gen_step or gen_step_sound; its contract plans the sizes.
            layout: shapes of the request.
            dims: its sizes of the graph's dynamic letters, but for U.
            arena: of the page-locked arrays; None: one of its own.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for it.
        """
        self._cuda, self.layout, self.dtype, self.graph = cuda, layout, gen.dtype, gen.contract.graph
        sizes = tensor_bytes(gen.contract, gen.dtype, {**dims, "U": gen.contract.profile["U"][2]})
        self.masks = tuple(name for name in MASKS if name in sizes)
        # Page-locked first: it lives until the context is closed, so that nothing leaks when the block can't be had
        host = (PinnedArena(cuda) if arena is None else arena).plan(self._host_arrays(gen, layout, dims))
        self._weights = {name: host[name] for name in WEIGHTS}
        self.findings, self.noise = host["findings"], host["noise"]
        self.vision, self.action, self.sound = host["vision"], host["action"], host["sound"]
        self.vision_noisy, self.action_noisy, self.sound_noisy = (host[name] for name in MASKS)
        vectors = ("state", "v_cond", "v_uncond", "clean")
        self.device = PlannedBlock(
            cuda,
            {
                "noise": 4 * layout.noise_count,
                **dict.fromkeys(vectors, layout.nbytes),
                **{name: sizes[name] for name in (*self.masks, "t", *WEIGHTS)},
                "findings": 4 * TRAIN_TIMESTEPS,
                # Slots for the K and V of each branch: captured graphs read them here, whichever prompt it is
                **{f"und_kv_{branch}": sizes["und_kv"] for branch in BRANCHES},
            },
            "tick buffers",
        )
        self._domain: object = None

    def clear(self, stream: Stream) -> None:
        """Zeros in every vector, gaps included: velocities fill only what is between the gaps."""
        for name in ("state", "v_cond", "v_uncond", "clean"):
            self._cuda.zero(self.pointer(name), self.layout.nbytes, stream)

    def pointer(self, name: str) -> int:
        """Address of a tensor."""
        return self.device.pointer(name)

    def part(self, vector: str, modality: str) -> int:
        """Address of "vision", "action" or "sound" within a vector."""
        return self.pointer(vector) + self.layout.offset_bytes(modality)

    def solver(self) -> SolverBuffers:
        """The addresses that a solver needs."""
        return SolverBuffers(**{field.name: self.pointer(field.name) for field in dataclasses.fields(SolverBuffers)})

    def put(self, destination: int, source: Array, stream: Stream) -> None:
        """Enqueues an upload of a page-locked array; of an empty one, nothing."""
        if source.nbytes:
            self._cuda.copy(destination, source.ctypes.data, source.nbytes, stream)

    def get(self, destination: Array, source: int, stream: Stream) -> None:
        """Enqueues a download into a page-locked array; of an empty one, nothing."""
        if destination.nbytes:
            self._cuda.copy(destination.ctypes.data, source, destination.nbytes, stream)

    def use_embodiment(self, weights: EmbodimentWeights, stream: Stream) -> None:
        """Uploads an embodiment's projections unless they are there already."""
        if self._domain is weights:
            return
        values = weights.in_weight, weights.in_bias, weights.out_weight, weights.out_bias
        for name, value in zip(WEIGHTS, values):
            self._weights[name][...] = value
            self.put(self.pointer(name), self._weights[name], stream)
        self._domain = weights

    def free(self) -> None:
        """Gives the device memory back; harmless when repeated."""
        self.device.free()

    @staticmethod
    def _host_arrays(
        gen: DeviceEngine, layout: StateLayout, dims: Mapping[str, int]
    ) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of the page-locked arrays."""
        contract = gen.contract
        shapes: dict[str, tuple[int, ...]] = {
            "noise": (layout.noise_count,),
            "vision_noisy": (layout.vision_shape[1],),
            "action_noisy": (layout.action_shape[0],),
            "sound_noisy": (layout.sound_shape[1],),
            "vision": layout.vision_shape,
            "action": layout.action_shape,
            "sound": layout.sound_shape,
            **{name: contract.tensor(name).shape({**contract.sizes, **dims}) for name in WEIGHTS},
        }
        return {"findings": ((2 * TRAIN_TIMESTEPS,), np.uint32), **{n: (s, np.float32) for n, s in shapes.items()}}
