"""Images by the kernel against images by numpy: the same canvas, bit for bit, wherever the frames lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_engines import FunctionEngine
from host_cuda import HostCuda
from kernel_twins import KERNELS

from motedge.bundle import Contract, TensorSpec
from motedge.errors import ObservationError
from motedge.runtime.cuda.frames import DeviceFrame
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.device_sight import KernelSight, make_sight
from motedge.runtime.policy.device_tick import HostSight
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.protocols import PROTOCOLS
from motedge.runtime.policy.shape import PolicyShape

CONTRACT = Contract(
    "vae_encoder",
    (TensorSpec("image", (1, 3, "Y", "X"), "fp32", "test"),),
    (TensorSpec("latent", ("C", 1, "h", "w"), "fp32", "test"),),
    {"C": 48, "h": 33, "w": 40, "Y": 544, "X": 736},
    {},
)
SHAPE = PolicyShape((544, 736), (540, 640), 33, (9, 33, 40), 33, 15.0)
RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


def picture(seed: int, rows: int = 360, columns: int = 640) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (rows, columns, 3)).astype(np.uint8)


DROID = PROTOCOLS["droid"]


def look(**images: Any) -> Observation:
    return Observation(np.zeros(7), 0.5, "go", **images)


@pytest.fixture
def scene() -> Iterator[SimpleNamespace]:
    cuda = HostCuda(deferred=True, kernels=KERNELS)
    with cuda.current():
        engine = FunctionEngine(cuda, CONTRACT, lambda x: [np.zeros((48, 1, 33, 40), np.float32)])
        workspace = Workspace(cuda)
        encoder = ImageEncoder(cuda, engine, workspace)
        stream = cuda.stream()
        library = KernelLibrary(cuda, b"fatbin", RECORD)
        sights = [make_sight(cuda, kernels, encoder, SHAPE, DROID, stream) for kernels in (library, None)]
        assert isinstance(sights[0], KernelSight) and isinstance(sights[1], HostSight)

        def canvas(sight: Any, observation: Observation) -> tuple[np.ndarray, tuple[str, ...]]:
            missing = sight.see(observation, stream)
            stream.synchronize()
            return cuda.view(encoder.canvas_pointer, (1, 3, 544, 736), np.float32).copy(), missing

        parts = {"library": library, "encoder": encoder}
        yield SimpleNamespace(cuda=cuda, kernel=sights[0], host=sights[1], canvas=canvas, stream=stream, **parts)
        for part in (*sights, encoder):
            part.close()
        assert set(cuda.ledger) <= {PINNED, "frames of the test"}
    cuda.close()


@pytest.mark.parametrize(
    "images",
    [
        {"views": {"wrist": picture(1), "left": picture(2), "right": picture(3)}},
        {"views": {"right": picture(4)}},
        {"views": {"wrist": picture(5, 96, 128), "left": picture(6)}},
        {"image": picture(7, 540, 640)},
    ],
    ids=["three", "one", "sizes", "composed"],
)
def test_equals_numpy(scene: SimpleNamespace, images: Any) -> None:
    image, missing = DROID.image(look(**images), SHAPE)
    expected = normalise(pad_canvas(image, SHAPE.canvas))
    for sight in (scene.kernel, scene.host):
        for _ in range(2):
            canvas, found = scene.canvas(sight, look(**images))
            np.testing.assert_array_equal(canvas, expected)
            assert found == missing


def test_a_vehicles_picture_goes_by_numpy(scene: SimpleNamespace) -> None:
    """The kernels know DROID's layout alone; with them or without, the canvas is the host's."""
    ego, shape = PROTOCOLS["ego"], dataclasses.replace(SHAPE, rows=32, state_rows=0)
    seen = Observation.of_camera(picture(8, 540, 640), "Keep left.")
    sight = make_sight(scene.cuda, scene.library, scene.encoder, shape, ego, scene.stream)
    assert isinstance(sight, HostSight)
    canvas, missing = scene.canvas(sight, seen)
    np.testing.assert_array_equal(canvas, normalise(pad_canvas(ego.image(seen, shape)[0], shape.canvas)))
    assert missing == ()
    with pytest.raises(ObservationError, match="robot's"):
        scene.canvas(sight, look(views={"wrist": picture(1)}))


def test_frames_on_the_gpu_are_taken_where_they_lie(scene: SimpleNamespace) -> None:
    """Two on the GPU, one of them with a pitch and BGR, one of the host."""
    left, wrist, right = picture(1), picture(2), picture(3)
    pitch = 3 * 640 + 128
    plain = scene.cuda.allocate(left.nbytes, "frames of the test")
    gapped = scene.cuda.allocate(360 * pitch, "frames of the test")
    scene.cuda.view(plain.pointer, left.shape, np.uint8)[...] = left
    rows = scene.cuda.view(gapped.pointer, (360, pitch), np.uint8)
    rows[:, : 3 * 640] = wrist[..., ::-1].reshape(360, -1)
    views = {
        "left": DeviceFrame(plain.pointer, 360, 640),
        "wrist": DeviceFrame(gapped.pointer, 360, 640, "bgr", pitch_bytes=pitch),
        "right": right,
    }
    canvas, missing = scene.canvas(scene.kernel, look(views=views))
    expected, _ = scene.canvas(scene.host, look(views={"left": left, "wrist": wrist, "right": right}))
    np.testing.assert_array_equal(canvas, expected)
    assert missing == ()
    with pytest.raises(ObservationError, match="on the GPU"):
        scene.canvas(scene.host, look(views=views))


def test_cameras_come_and_go(scene: SimpleNamespace) -> None:
    """Memory is bounded by the sets of cameras that are kept."""
    for number in range(12):
        views = {"wrist": picture(number, 64 + 16 * (number % 6), 128)}
        canvas, _ = scene.canvas(scene.kernel, look(views=views))
        expected, _ = scene.canvas(scene.host, look(views=views))
        np.testing.assert_array_equal(canvas, expected)
    assert len(scene.kernel._cameras) == 4


def test_a_frame_that_is_no_picture() -> None:
    with pytest.raises(ObservationError, match="wrong size"):
        look(views={"wrist": DeviceFrame(4096, 4, 640)})
