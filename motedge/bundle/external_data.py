"""Which external data files an ONNX file refers to, read without the onnx package.

The device runtime has no onnx package, yet must not follow a path out of the bundle before it hands the file to an
engine library. This walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding) down to
ModelProto.graph.initializer.external_data and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from motedge.errors import BundleError

# Field numbers of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3)
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(model: Path) -> list[str]:
    """The distinct `location` values of a model's initializers, in order of appearance.

    Raises:
        BundleError: the file is not an ONNX model.
    """
    found: dict[str, None] = {}
    try:
        data = memoryview(model.read_bytes())
        for graph in _messages(data, _MODEL_GRAPH):
            for tensor in _messages(graph, _GRAPH_INITIALIZER):
                for entry in _messages(tensor, _TENSOR_EXTERNAL_DATA):
                    key = b"".join(bytes(part) for part in _messages(entry, _ENTRY_KEY))
                    value = b"".join(bytes(part) for part in _messages(entry, _ENTRY_VALUE))
                    if key == b"location":
                        found[value.decode("utf-8")] = None
    except (ValueError, IndexError) as error:
        raise BundleError(f"{model.name} is not an ONNX model", got=str(error), fix="export again") from error
    return list(found)


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, position = _read_varint(data, position)
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        elif kind == _BYTES:
            length, position = _read_varint(data, position)
            if position + length > len(data):
                raise ValueError("truncated protobuf message")
            if number == wanted:
                yield data[position : position + length]
            position += length
        else:
            raise ValueError(f"unknown protobuf wire type {kind}")


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("protobuf varint is too long")
