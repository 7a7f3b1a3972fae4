"""What a step of graph und is given, packed so that it reaches the device in one copy from page-locked memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES
from motedge.runtime.device_engine import DeviceEngine, tensor_bytes
from motedge.runtime.engine import Array, FloatArray

# fp32, in this order; deepstack, which text does without, stands last
_PACKED = ("embeddings", "cos", "sin", "past_length")
_FEATURES = "deepstack"


class StepInputs:
    """Room for the inputs of the longest step; shorter ones are packed more closely, from the same address on."""

    def __init__(self, cuda: Cuda, engine: DeviceEngine, most: int) -> None:
        """Allocates for steps of `most` tokens.

        Raises:
            OutOfDeviceMemoryError: no room for them.
        """
        self._cuda, self._contract, self._dtype = cuda, engine.contract, engine.dtype
        self._least = engine.contract.profile["P"][0]
        names = {spec.name for spec in engine.contract.inputs}
        self._names = (*_PACKED, *([_FEATURES] if _FEATURES in names else []))
        nbytes = self._layout(most)[1]
        self._host: Array = cuda.pinned((nbytes,), np.uint8)
        self._device = cuda.allocate(nbytes, "the reasoner's inputs")

    def pointers(self, count: int) -> dict[str, int]:
        """Device address of each input of a step of `count` tokens."""
        return {name: self._device.pointer + place for name, (place, _) in self._layout(count)[0].items()}

    def fill(self, values: Mapping[str, FloatArray], deepstack: Optional[FloatArray]) -> None:
        """Puts a step's inputs into page-locked memory; nothing of an earlier upload may be under way.

        Args:
            values: embeddings [S, H], cos and sin [S, R], past_length [1], fp32.
            deepstack: fp32 [layers, S, H]; None: zero.
        """
        layout = self._layout(len(values["embeddings"]))[0]
        given = values if deepstack is None else {**values, _FEATURES: deepstack}
        for name, value in given.items():
            place, nbytes = layout[name]
            self._host[place : place + nbytes].view(np.float32)[...] = value.reshape(-1)

    def upload(self, count: int, stream: Stream, *, features: bool) -> None:
        """Enqueues the upload for a step of `count` tokens; without `features` deepstack is set to zero."""
        layout, nbytes = self._layout(count)
        place, size = layout.get(_FEATURES, (nbytes, 0))
        self._cuda.copy(self._device.pointer, self._host.ctypes.data, nbytes if features else place, stream)
        if size and not features:
            self._cuda.zero(self._device.pointer + place, size, stream)

    def free(self) -> None:
        """Gives the device memory back; harmless when repeated."""
        self._device.free()

    def _layout(self, count: int) -> tuple[dict[str, tuple[int, int]], int]:
        """Place and bytes of each input, and bytes in all."""
        sizes = tensor_bytes(self._contract, self._dtype, {"S": count, "P": self._least})
        places, end = {}, 0
        for name in self._names:
            places[name] = end, sizes[name]
            end += -(-sizes[name] // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return places, end
