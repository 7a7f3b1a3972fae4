"""Images and videos made ready, against transformers' own processors; sampling, times and sizes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import ContractError, ObservationError, UsageError
from motedge.runtime.reasoner.fitted_size import image_size, video_size
from motedge.runtime.reasoner.patches import patchify
from motedge.runtime.reasoner.video_sampling import frame_times, sampled_frames, time_text
from motedge.runtime.reasoner.vision_settings import EDGE, QWEN3_VL, VisionSettings
from motedge.runtime.reasoner.visual_input import prepare_image, prepare_video

FAMILIES = {"edge": EDGE, "qwen3_vl": QWEN3_VL}
IMAGE_ORACLES = {
    "edge": ("cosmos3_edge.image_processing_pil_cosmos3_edge", "Cosmos3EdgeImageProcessorPil"),
    "qwen3_vl": ("qwen2_vl.image_processing_pil_qwen2_vl", "Qwen2VLImageProcessorPil"),
}
# They need torchvision, which nothing else here does: skipped without it
VIDEO_ORACLES = {
    "edge": ("cosmos3_edge.video_processing_cosmos3_edge", "Cosmos3EdgeVideoProcessor"),
    "qwen3_vl": ("qwen3_vl.video_processing_qwen3_vl", "Qwen3VLVideoProcessor"),
}
side = st.integers(1, 3000)


def _oracle(name: tuple[str, str]) -> Any:
    pytest.importorskip("transformers")
    return getattr(importlib.import_module(f"transformers.models.{name[0]}"), name[1])


def _picture(rows: int, columns: int, shift: float = 0.0) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 9, columns) + shift, np.linspace(0, 7, rows))
    return (127 + 120 * np.stack([np.sin(x * y / 3), np.cos(x), np.sin(y)], axis=-1)).astype(np.uint8)


def _processor(family: str, oracles: dict[str, tuple[str, str]], pixels: tuple[int, int], **more: Any) -> Any:
    ours = FAMILIES[family]
    return _oracle(oracles[family])(
        patch_size=ours.patch,
        temporal_patch_size=ours.temporal_patch,
        merge_size=ours.merge,
        size={"shortest_edge": pixels[0], "longest_edge": pixels[1]},
        image_mean=list(ours.mean),
        image_std=list(ours.std),
        **more,
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(240, 320), (97, 411), (20, 300), (540, 640)])
def test_image_as_the_processor_makes_it(family: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = _picture(*shape)
    # Their default backend's resizing, in the backend that needs no torchvision
    monkeypatch.setattr("transformers.image_processing_backends.np_resize", _torch_resize)
    processor = _processor(family, IMAGE_ORACLES, FAMILIES[family].image_pixels)
    theirs = processor(image, return_tensors="np", input_data_format="channels_last")
    ours = prepare_image(image, FAMILIES[family])
    assert [ours.grid.frames, ours.grid.rows, ours.grid.columns] == theirs["image_grid_thw"][0].tolist()
    assert ours.patches.shape == theirs["pixel_values"].shape
    assert ours.patches.dtype == np.float32
    # Their default backend folds 1/255 into mean and standard deviation, as ours does; this one doesn't
    assert np.abs(ours.patches - theirs["pixel_values"]).max() <= 2e-7


def _torch_resize(image: np.ndarray, size: tuple[int, int], **_: Any) -> np.ndarray:
    torch = pytest.importorskip("torch")
    # Channels first
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    return torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True)[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [2, 5, 6])
def test_video_as_the_processor_makes_it(family: str, frames: int) -> None:
    pytest.importorskip("torchvision")
    torch = pytest.importorskip("torch")
    clip = np.stack([_picture(90, 150, shift) for shift in range(frames)])
    processor = _processor(family, VIDEO_ORACLES, FAMILIES[family].video_pixels, do_sample_frames=False)
    theirs = processor(torch.from_numpy(clip).permute(0, 3, 1, 2), return_tensors="pt")
    ours = prepare_video(clip, range(frames), 2.0, FAMILIES[family])
    assert [ours.grid.frames, ours.grid.rows, ours.grid.columns] == theirs["video_grid_thw"][0].tolist()
    assert np.array_equal(ours.patches, theirs["pixel_values_videos"].numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_image_as_the_default_processor_makes_it(family: str) -> None:
    pytest.importorskip("torchvision")
    name = {
        "edge": ("cosmos3_edge.image_processing_cosmos3_edge", "Cosmos3EdgeImageProcessor"),
        "qwen3_vl": ("qwen2_vl.image_processing_qwen2_vl", "Qwen2VLImageProcessor"),
    }
    processor = _processor(family, name, FAMILIES[family].image_pixels)
    for shape in [(240, 320), (97, 411), (20, 300), (540, 640)]:
        image = _picture(*shape)
        theirs = processor(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"].numpy()
        assert np.array_equal(prepare_image(image, FAMILIES[family]).patches, theirs), shape


@given(rows=side, columns=side)
@settings(max_examples=200, deadline=None)
def test_image_sizes(rows: int, columns: int) -> None:
    edge = _oracle(("cosmos3_edge.image_processing_pil_cosmos3_edge", "smart_resize"))
    qwen = _oracle(("qwen2_vl.image_processing_pil_qwen2_vl", "smart_resize"))
    least, most = EDGE.image_pixels
    limits = {"factor": 32, "min_pixels": least, "max_pixels": most}
    _same(lambda: image_size(rows, columns, EDGE), lambda: edge(1, rows, columns, temporal_factor=1, **limits))
    _same(lambda: image_size(rows, columns, QWEN3_VL), lambda: qwen(rows, columns, **limits))


@given(frames=st.integers(1, 800), rows=side, columns=side, family=st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=200, deadline=None)
def test_video_sizes(frames: int, rows: int, columns: int, family: str) -> None:
    # The same rule as qwen3_vl's, whose module needs torchvision
    oracle = _oracle(("cosmos3_edge.image_processing_pil_cosmos3_edge", "smart_resize"))
    ours = FAMILIES[family]
    limits = {"factor": 32, "min_pixels": ours.video_pixels[0], "max_pixels": ours.video_pixels[1]}
    _same(
        lambda: video_size(frames, rows, columns, ours),
        lambda: oracle(frames, rows, columns, temporal_factor=ours.temporal_patch, **limits),
    )


def _same(ours: Any, theirs: Any) -> None:
    try:
        expected = theirs()
    except ValueError:
        with pytest.raises(ObservationError):
            ours()
    else:
        assert ours() == expected


@pytest.mark.parametrize(
    ("total", "rate_hz", "expected"),
    [(60, 15.0, 8), (5, 30.0, 4), (3, 30.0, 3), (1, 30.0, 1), (100_000, 10.0, 768)],
)
def test_sampling(total: int, rate_hz: float, expected: int) -> None:
    indexes = sampled_frames(total, rate_hz, EDGE)
    assert len(indexes) == expected
    assert (indexes[0], indexes[-1]) == (0, total - 1)
    assert indexes == sorted(set(indexes))


@given(total=st.integers(1, 5000), rate_hz=st.floats(0.5, 120), sample_hz=st.sampled_from([0.5, 1.0, 2.0, 4.0]))
@settings(max_examples=100, deadline=None)
def test_sampling_as_the_processor_does(total: int, rate_hz: float, sample_hz: float) -> None:
    pytest.importorskip("torchvision")
    metadata = _oracle(("cosmos3_edge.video_processing_cosmos3_edge", "VideoMetadata"))(total, fps=rate_hz)
    theirs = _oracle(VIDEO_ORACLES["edge"])().sample_frames(metadata, fps=sample_hz)
    assert sampled_frames(total, rate_hz, EDGE, sample_hz=sample_hz) == theirs.tolist()


def test_times() -> None:
    assert frame_times([0, 15, 30], 15.0, EDGE) == (0.0, 1.0, 2.0)
    assert frame_times([0, 15, 30], 15.0, QWEN3_VL) == (0.5, 2.0)
    assert time_text(0.25) == "<0.2 seconds>"
    processor = _oracle(("qwen3_vl.processing_qwen3_vl", "Qwen3VLProcessor"))
    theirs = processor._calculate_timestamps(None, [1, 4, 9, 11, 20], 7.5, 2)
    assert list(frame_times([1, 4, 9, 11, 20], 7.5, QWEN3_VL)) == theirs


def test_bad_images() -> None:
    with pytest.raises(ObservationError, match="RGB"):
        prepare_image(np.zeros((40, 40), np.uint8), EDGE)
    with pytest.raises(ObservationError, match="RGB"):
        prepare_image(np.zeros((40, 40, 3), np.float32), EDGE)
    with pytest.raises(ObservationError, match="empty"):
        prepare_image(np.zeros((0, 40, 3), np.uint8), EDGE)
    with pytest.raises(ObservationError, match="too long"):
        prepare_image(np.zeros((1, 300, 3), np.uint8), QWEN3_VL)


def test_bad_videos() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ObservationError, match="one size"):
        prepare_video([frame, frame[1:]], [0, 1], 2.0, EDGE)
    with pytest.raises(ObservationError, match="none"):
        prepare_video([], [], 2.0, EDGE)
    with pytest.raises(ObservationError, match="2 sampled frames"):
        prepare_video([frame], [0, 1], 2.0, EDGE)
    with pytest.raises(ObservationError, match="too short"):
        prepare_video([frame], [0], 2.0, QWEN3_VL)
    with pytest.raises(ObservationError, match="rate"):
        prepare_video([frame], [0], 0.0, EDGE)
    with pytest.raises(ObservationError, match="empty"):
        sampled_frames(0, 10.0, EDGE)


def test_bad_settings_and_frames() -> None:
    with pytest.raises(UsageError, match="above 0"):
        VisionSettings(patch=0)
    with pytest.raises(UsageError, match="limit"):
        VisionSettings(image_pixels=(10, 5))
    with pytest.raises(ContractError, match="multiples of 32"):
        patchify(np.zeros((1, 33, 32, 3), np.uint8), EDGE)
