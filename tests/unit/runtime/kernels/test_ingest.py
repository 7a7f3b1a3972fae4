"""Camera ingest through numpy twins of its kernels: bit for bit what the policy makes of the images on the host."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import HostCuda
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_scene import ingested, ingested_image, random_frame, reference, rgb_of
from kernel_twins import KERNELS

from motedge.errors import ContractError, ObservationError, UsageError
from motedge.runtime.cuda.errors import CudaError, OutOfDeviceMemoryError
from motedge.runtime.cuda.frames import FORMATS
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.ingest import CameraIngest, ImageIngest
from motedge.runtime.kernels.ingest_plan import IngestPlan
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord
from motedge.runtime.kernels.yuv import MATRICES, nv12_to_rgb
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.resize import resize_bilinear
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)
CANVAS = (544, 640)


def host(**options: object) -> tuple[HostCuda, KernelLibrary]:
    cuda = HostCuda(kernels=KERNELS, **options)  # type: ignore[arg-type]
    return cuda, KernelLibrary(cuda, b"fatbin", RECORD)


@st.composite
def specs(draw: st.DrawFn) -> FrameSpec:
    kind = draw(st.sampled_from(FORMATS))
    step = 2 if kind == "nv12" else 1
    rows, columns = (draw(st.integers(8, 250)) * step for _ in range(2))
    spec = FrameSpec(
        rows, columns, kind, matrix=draw(st.sampled_from(sorted(MATRICES))), full_range=draw(st.booleans())
    )
    pitch = spec.row_bytes + draw(st.integers(0, 40))
    offset = rows * pitch + draw(st.integers(0, 100)) if kind == "nv12" and draw(st.booleans()) else None
    return FrameSpec(rows, columns, kind, pitch, spec.matrix, spec.full_range, offset)


@settings(max_examples=12, deadline=None)
@given(
    sources=st.dictionaries(st.sampled_from(VIEW_NAMES), specs(), min_size=1),
    content=st.one_of(st.just(COMPOSED_SIZE), st.tuples(st.integers(1, 200), st.integers(1, 200))),
    padding=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    seed=st.integers(0, 99),
)
def test_cameras_become_what_the_host_makes_of_them(
    sources: dict[str, FrameSpec], content: tuple[int, int], padding: tuple[int, int], seed: int
) -> None:
    canvas = content[0] + padding[0], content[1] + padding[1]
    frames = {name: random_frame(spec, seed) for name, spec in sources.items()}
    if seed % 3 == 0 and len(frames) > 1:
        frames.popitem()
    cuda, library = host()
    with cuda.current():
        got, missing = ingested(cuda, library, sources, frames, content, canvas)
        assert missing == tuple(name for name in VIEW_NAMES if name not in frames)
        expected = reference({name: rgb_of(sources[name], frame) for name, frame in frames.items()}, content, canvas)
        assert (got == expected).all()
        assert cuda.ledger.get("camera ingest", 0) == 0
    cuda.close()


@pytest.mark.parametrize("size", [(720, 1280), (360, 640), (1080, 1920), (480, 640), (180, 320), (240, 1000)])
def test_common_sizes(size: tuple[int, int]) -> None:
    sources = dict.fromkeys(VIEW_NAMES, FrameSpec(*size, "nv12"))
    frames = {name: random_frame(spec, seed) for seed, (name, spec) in enumerate(sources.items())}
    cuda, library = host()
    with cuda.current():
        got, missing = ingested(cuda, library, sources, frames, COMPOSED_SIZE, CANVAS)
        assert missing == () and cuda.counts["launch"] == 1
        expected = reference({name: rgb_of(sources[name], frames[name]) for name in frames}, COMPOSED_SIZE, CANVAS)
        assert (got == expected).all()
    cuda.close()


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    content=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    padding=st.tuples(st.integers(0, 130), st.integers(0, 130)),
    same=st.booleans(),
)
def test_a_composed_image(
    size: tuple[int, int], content: tuple[int, int], padding: tuple[int, int], same: bool
) -> None:
    content = size if same else content
    canvas = content[0] + padding[0], content[1] + padding[1]
    spec = FrameSpec(*size, pitch_bytes=3 * size[1] + 5)
    frame = random_frame(spec, 3)
    cuda, library = host()
    with cuda.current():
        got = ingested_image(cuda, library, spec, frame, content, canvas)
        expected = normalise(pad_canvas(resize_bilinear(rgb_of(spec, frame), content), canvas))
        assert (got == expected).all()
    cuda.close()


def test_large_frames_take_smaller_tiles_and_far_too_large_ones_are_refused() -> None:
    assert IngestPlan.of({"left": FrameSpec(720, 1280, "nv12")}).tile_rows == 8
    plan = IngestPlan.of({"left": FrameSpec(4320, 7680, "nv12")})
    assert plan.tile_rows < 8 and plan.shared_bytes <= 48 << 10
    with pytest.raises(ObservationError, match="too large"):
        IngestPlan.of({"left": FrameSpec(24000, 32000, "nv12")})


def ingest(cuda: HostCuda, library: KernelLibrary, **changed: object) -> CameraIngest:
    arguments = {
        "sources": {"wrist": FrameSpec(36, 64), "left": FrameSpec(36, 64, "nv12")},
        "content": (54, 64),
        "canvas": (64, 64),
        "stream": cuda.stream(),
        **changed,
    }
    return CameraIngest(cuda, library, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"sources": {"wirst": FrameSpec(36, 64)}}, ObservationError, "wrist"),
        ({"sources": {}}, ObservationError, "no camera"),
        ({"sources": {"wrist": FrameSpec(2, 4000)}}, ObservationError, "too narrow"),
        ({"canvas": (53, 64)}, ContractError, "does not fit"),
        ({"content": (0, 64)}, ContractError, "does not fit"),
    ],
)
def test_what_can_not_be_ingested(changed: dict[str, object], error: type[Exception], words: str) -> None:
    cuda, library = host()
    with cuda.current():
        with pytest.raises(error, match=words):
            ingest(cuda, library, **changed)
        assert cuda.ledger.get("camera ingest", 0) == 0
    cuda.close()


def test_frames_of_other_cameras_are_refused_and_none_at_all_too() -> None:
    cuda, library = host()
    with cuda.current():
        made = ingest(cuda, library)
        for frames in ({}, {"right": 256}, {"wrist": 256, "right": 256}):
            with pytest.raises(ObservationError, match="planned"):
                made.enqueue(frames, 256, cuda.stream())
        assert cuda.counts["launch"] == 0
        made.close()
        made.close()
        with pytest.raises(UsageError, match="closed"):
            made.enqueue({"wrist": 256}, 256, cuda.stream())
    cuda.close()


def test_after_a_failure_nothing_stays_allocated() -> None:
    with pytest.raises(ContractError, match="RGB"):
        ImageIngest(*host(), FrameSpec(4, 4, "bgr"), (4, 4), (4, 4), None)  # type: ignore[arg-type]
    for after in range(3):
        cuda, library = host()
        with cuda.current():
            cuda.inject("allocate", OutOfDeviceMemoryError("no room"), after)
            with pytest.raises(OutOfDeviceMemoryError):
                ingest(cuda, library)
            assert cuda.ledger.get("camera ingest", 0) == 0
        cuda.close()
    for after in range(2):
        cuda, library = host()
        with cuda.current():
            cuda.inject("copy", CudaError("a copy failed"), after)
            with pytest.raises(CudaError, match="a copy failed"):
                ingest(cuda, library)
            assert cuda.ledger.get("camera ingest", 0) == 0
        cuda.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "yuyv"}, "unknown pixel format"),
        ({"matrix": "bt2020"}, "unknown matrix"),
        ({"rows": 0}, "at least 1 x 1"),
        ({"rows": 3, "format": "nv12"}, "even sides"),
        ({"pitch_bytes": 11}, "pitch"),
        ({"format": "nv12", "chroma_offset_bytes": 15}, "chroma behind"),
        ({"pitch_bytes": 1 << 30}, "2 GiB"),
    ],
)
def test_frames_that_can_not_lie_like_this(fields: dict[str, object], words: str) -> None:
    with pytest.raises((ObservationError, UsageError), match=words):
        FrameSpec(**{"rows": 4, "columns": 4, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("matrix", sorted(MATRICES))
@pytest.mark.parametrize("full_range", [False, True])
def test_nv12_is_the_recommendations_formula_rounded(matrix: str, full_range: bool) -> None:
    """Against the definition in fp64, solved for RGB from the forward equations; every luma, chroma in steps."""
    kr, kb = MATRICES[matrix]
    forward = np.array(
        [
            [kr, 1 - kr - kb, kb],
            np.array([-kr, kr + kb - 1, 1 - kb]) / (2 * (1 - kb)),
            np.array([1 - kr, kr + kb - 1, -kb]) / (2 * (1 - kr)),
        ]
    )
    y, cb, cr = np.meshgrid(np.arange(256), np.arange(0, 256, 5), np.arange(0, 256, 5), indexing="ij")
    black, luma, chroma = (0, 255, 255) if full_range else (16, 219, 224)
    exact = np.stack([(y - black) / luma, (cb - 128) / chroma, (cr - 128) / chroma])
    rgb = np.tensordot(np.linalg.inv(forward), exact, 1) * 255
    got = [_converted(int(b), int(r), matrix, full_range) for b, r in zip(cb[0].flat, cr[0].flat)]
    result = np.stack(got).reshape(52, 52, 256, 3).transpose(3, 2, 0, 1)
    # The factors' own rounding may move a value by 255 * 3 * 2**-21
    assert np.abs(result - rgb.clip(0, 255)).max() <= 0.5 + 4e-4


def _converted(cb: int, cr: int, matrix: str, full_range: bool) -> np.ndarray:
    luma = np.arange(256, dtype=np.uint8).reshape(1, 256).repeat(2, axis=0)
    chroma = np.broadcast_to(np.array([cb, cr], np.uint8), (1, 128, 2))
    return nv12_to_rgb(luma, chroma, matrix, full_range)[0]


def test_cameras_that_come_and_go_hold_no_more_memory() -> None:
    cuda, library = host()
    with cuda.current():
        ingest(cuda, library).close()
        before = cuda.ledger
        for rows in (36, 72, 18):
            ingest(cuda, library, sources={"wrist": FrameSpec(rows, 64)}).close()
        assert cuda.ledger == before
    cuda.close()
