"""The camera example's `frame_of`, on things that look like jetson-utils' cudaImage."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from motedge.errors import ObservationError

EXAMPLE = Path(__file__).resolve().parents[4] / "examples/jetson_camera.py"


@pytest.fixture(scope="module")
def frame_of() -> Any:
    spec = importlib.util.spec_from_file_location("jetson_camera", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.frame_of


def _image(format: str) -> Any:
    # As PyCUDA.cpp of jetson-utils makes it: three channels for every format of colour, no strides, no stream
    interface = {"shape": (720, 1280, 3), "typestr": "<u1", "data": (0x10000, False), "version": 3}
    return SimpleNamespace(ptr=0x10000, width=1280, height=720, format=format, __cuda_array_interface__=interface)


def test_nv12_by_its_address(frame_of: Any) -> None:
    frame = frame_of(_image("nv12"), full_range=True)
    assert (frame.pointer, frame.rows, frame.columns, frame.format) == (0x10000, 720, 1280, "nv12")
    assert (frame.matrix, frame.full_range, frame.producer_stream) == ("bt601", True, 1)


@pytest.mark.parametrize("format", ["rgb8", "bgr8"])
def test_interleaved_by_its_interface(frame_of: Any, format: str) -> None:
    image = _image(format)
    frame = frame_of(image)
    assert (frame.rows, frame.columns, frame.format, frame.pitch_bytes) == (720, 1280, format[:3], 3840)
    assert frame.owner is image
    assert frame.producer_stream == 1


def test_other_formats_are_refused(frame_of: Any) -> None:
    with pytest.raises(ObservationError, match="rgba8"):
        frame_of(_image("rgba8"))
