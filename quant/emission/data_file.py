"""Writing the external data of a quantized graph: one tensor after another, hashed on the way."""

from __future__ import annotations

import hashlib
from typing import IO

import torch
from onnx import TensorProto
from torch import Tensor

from motedge.export.weights import LINE, PAGE, as_bytes
from motedge.files import write_chunks
from motedge.quant.emission.lent import LentTensors

ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float8_e4m3fn: TensorProto.FLOAT8E4M3FN,
    torch.int8: TensorProto.INT8,
}
# Two values a byte, the first in the low half
PACKED_TYPES = (TensorProto.INT4, TensorProto.FLOAT4E2M1)


class DataFile:
    """A data file under construction; nothing is held but the tensor at hand."""

    def __init__(self, stream: IO[bytes], location: str, lent: LentTensors | None = None) -> None:
        """`location`: what the ONNX file calls it, relative to its own folder. `lent`: what need not be written."""
        self._stream, self._location, self._lent = stream, location, lent
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Hash of everything written so far."""
        return self._digest.hexdigest()

    def add(self, name: str, values: Tensor, onnx_type: int | None = None) -> TensorProto:
        """Appends a tensor, unless it is lent; returns its initializer, which points at it.

        Args:
            name: the initializer's name.
            values: contiguous values; for a packed type one small integer a value (int8 or uint8).
            onnx_type: TensorProto type; None: that of the values.
        """
        kind = ONNX_TYPES[values.dtype] if onnx_type is None else onnx_type
        data = as_bytes(_pack(values) if kind in PACKED_TYPES else values.contiguous())
        if self._lent is not None:
            lent = self._lent.find(name, list(values.shape), kind, data)
            if lent is not None:
                return lent
        align = PAGE if len(data) >= PAGE else LINE
        offset = -(-self.size // align) * align
        for part in (memoryview(bytes(offset - self.size)), data):
            write_chunks(self._stream, part)
            self._digest.update(part)
        self.size = offset + len(data)
        proto = TensorProto(name=name, data_type=kind, dims=list(values.shape), data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self._location), ("offset", offset), ("length", len(data))):
            proto.external_data.add(key=key, value=str(value))
        return proto


def _pack(values: Tensor) -> Tensor:
    """Small integers, signed or codes -> uint8, two a byte; an even number of values."""
    pairs = values.contiguous().view(torch.uint8).flatten().reshape(-1, 2) & 0x0F
    return pairs[:, 0] | (pairs[:, 1] << 4)
