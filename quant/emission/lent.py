"""Tensors that another graph's quantized file holds already: referred to, not written twice."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto


class LentTensors:
    """External tensors of a written graph, found by name and taken only where every byte agrees."""

    def __init__(self, model: Path) -> None:
        """`model`: its ONNX file, whose data files lie where it says."""
        proto = onnx.load(str(model), load_external_data=False)
        self._folder = model.parent
        self._known = {t.name: t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL}

    def find(self, name: str, dims: list[int], onnx_type: int, data: memoryview) -> TensorProto | None:
        """An initializer that points at the other graph's data; None where that differs or has no such tensor."""
        known = self._known.get(name)
        if known is None or (list(known.dims), known.data_type) != (dims, onnx_type):
            return None
        place = {entry.key: entry.value for entry in known.external_data}
        offset, length = int(place["offset"]), int(place["length"])
        if length != len(data):
            return None
        held = np.memmap(self._folder / place["location"], np.uint8, mode="r", offset=offset, shape=(length,))
        return copy.deepcopy(known) if np.array_equal(held, np.frombuffer(data, np.uint8)) else None
