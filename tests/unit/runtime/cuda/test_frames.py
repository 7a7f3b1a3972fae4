"""Frames on the GPU are taken where they lie, or refused in words; here their memory is the host's."""

from __future__ import annotations

import ctypes
from typing import Any, Optional

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.errors import ObservationError, UsageError
from motedge.runtime.cuda.dlpack import CPU, CUDA, CUDA_HOST, CUDA_MANAGED
from motedge.runtime.cuda.frames import DeviceFrame, device_frame


class Interface:
    """Something with __cuda_array_interface__."""

    def __init__(self, **entries: Any) -> None:
        given = {"shape": (4, 6, 3), "typestr": "|u1", "data": (0x7000, False), "version": 3}
        self.__cuda_array_interface__ = {**given, **entries}


class Tensor:
    """A numpy array that says it is on a GPU: its capsule is numpy's own, with the device written over it."""

    def __init__(self, array: np.ndarray[Any, Any], kind: int = CUDA, number: int = 0) -> None:
        self.array, self.kind, self.number = array, kind, number
        self.streams: list[Optional[int]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.number

    def __dlpack__(self, stream: Optional[int] = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


def test_interface_without_strides() -> None:
    source = Interface()
    frame = device_frame(source, "bgr")
    assert frame == DeviceFrame(0x7000, 4, 6, "bgr", 18)
    assert frame.owner is source


def test_interface_with_pitch_and_stream() -> None:
    frame = device_frame(Interface(strides=(32, 3, 1), stream=2, typestr="<u1"))
    assert (frame.pitch_bytes, frame.producer_stream) == (32, 2)


def test_nv12() -> None:
    frame = device_frame(Interface(shape=(6, 8), strides=(64, 1)), "nv12", matrix="bt601", full_range=True)
    assert (frame.rows, frame.columns, frame.pitch_bytes) == (4, 8, 64)
    assert (frame.matrix, frame.full_range) == ("bt601", True)
    assert device_frame(Interface(shape=(6, 8, 1)), "nv12").rows == 4


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"typestr": "<f4"}, "wrong type"),
        ({"shape": (3, 4, 6)}, r"permute\(1, 2, 0\)"),
        ({"shape": (4, 6, 4)}, "alpha"),
        ({"shape": (4, 6)}, "wrong shape"),
        ({"strides": (6, 24, 1)}, "laid out in another way"),
        ({"strides": (9, 3, 1)}, "laid out in another way"),
        ({"strides": (-18, 3, 1)}, "laid out in another way"),
        ({"stream": 0}, "stream 0"),
        ({"mask": object()}, "mask"),
        ({"data": None}, "can't be read"),
        ({"data": (0, False)}, "empty"),
    ],
)
def test_interface_is_refused(entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ObservationError, match=said):
        device_frame(Interface(**entries))


@pytest.mark.parametrize("shape", [(4, 8), (6, 7), (6, 8, 3), (6,)])
def test_nv12_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ObservationError, match="wrong shape"):
        device_frame(Interface(shape=shape), "nv12")


@pytest.mark.parametrize(("kind", "stream"), [(CUDA, 1), (CUDA_MANAGED, 1), (CUDA_HOST, None)])
def test_dlpack(kind: int, stream: Optional[int]) -> None:
    array = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    tensor = Tensor(array[:, :5], kind)
    frame = device_frame(tensor)
    assert (frame.pointer, frame.rows, frame.columns, frame.pitch_bytes) == (array.ctypes.data, 8, 5, 27)
    assert frame.producer_stream == stream
    assert tensor.streams == [stream]
    seen = (ctypes.c_uint8 * 5).from_address(frame.pointer + 27)
    assert bytes(seen) == array[1].tobytes()[:5]


def test_dlpack_keeps_the_memory_and_lets_it_go() -> None:
    import gc
    import weakref

    class Owned(np.ndarray):
        pass

    array = np.zeros((4, 4, 3), np.uint8).view(Owned)
    gone = weakref.ref(array)
    frame = device_frame(Tensor(array))
    del array
    gc.collect()
    assert gone() is not None
    del frame
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (Tensor(np.zeros((4, 4, 3), np.uint8), CPU), "host memory"),
        (Tensor(np.zeros((4, 4, 3), np.uint8), CUDA, 1), "another GPU"),
        (Tensor(np.zeros((4, 4, 3), np.uint8), 7), "no memory of CUDA's"),
        (Tensor(np.zeros((4, 4, 3), np.float32)), "wrong type"),
        (Tensor(np.zeros((4, 3, 4), np.uint8).transpose(0, 2, 1)), "laid out"),
    ],
)
def test_dlpack_is_refused(tensor: Tensor, said: str) -> None:
    with pytest.raises(ObservationError, match=said):
        device_frame(tensor)


def test_a_library_that_refuses() -> None:
    class Refusing(Tensor):
        def __dlpack__(self, stream: Optional[int] = None) -> Any:
            raise BufferError("needs grad")

    with pytest.raises(ObservationError, match="needs grad"):
        device_frame(Refusing(np.zeros((4, 4, 3), np.uint8)))


def test_host_arrays_and_other_things_are_refused() -> None:
    with pytest.raises(ObservationError, match="host memory"):
        device_frame(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ObservationError, match="no frame on a GPU"):
        device_frame(object())
    with pytest.raises(UsageError, match="did you mean 'nv12'"):
        device_frame(Interface(), "nv21")
    with pytest.raises(UsageError):
        DeviceFrame(1, 1, 1, "yuv")


def test_waits_for_the_producer() -> None:
    cuda = HostCuda(deferred=True)
    with cuda.current():
        camera, ours = cuda.stream(), cuda.stream()
        block, back = cuda.allocate(12, "frame"), cuda.pinned((12,), np.uint8)
        cuda.zero(block.pointer, 12, camera)
        frame = device_frame(Interface(shape=(2, 2, 3), data=(block.pointer, True), stream=camera.handle))
        frame.wait_on(cuda, ours)
        cuda.copy(back.ctypes.data, frame.pointer, 12, ours)
        back[:] = 7
        ours.synchronize()
        assert not back.any()
        DeviceFrame(block.pointer, 2, 2).wait_on(cuda, ours)
        assert cuda.counts["wait for producer"] == 1
    cuda.close()
