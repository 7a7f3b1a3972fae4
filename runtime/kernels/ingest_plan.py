"""The camera kernel's tables: where each view goes, its filters, how the grid is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motedge.errors import InternalError, ObservationError
from motedge.runtime.cuda.frames import FORMATS
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.yuv import yuv_factors
from motedge.runtime.policy.letterbox import fit_inside, triangle_filter
from motedge.runtime.policy.views import CAMERA_SIZE, view_regions

# Fields of struct View in kernels/ingest.cu
VIEW_FIELDS = 24
_TILE_COLUMNS = 32
# Rows of a tile, the first that fits: a block has 32 of them columns wide, at most 256 threads
_TILE_ROWS = (8, 4, 2, 1)
# What a block can use without asking for more (CUDA C++ Programming Guide, compute capabilities)
_SHARED_BYTES = 48 << 10
# A pixel of the narrow image is one word
_PIXEL_BYTES = 4

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class IngestPlan:
    """Everything that the kernel needs to know of the cameras."""

    # Order of the kernel's frames, and of `views`
    names: tuple[str, ...]
    # int32 [len(names), VIEW_FIELDS]
    views: Int32
    # int32: for each filter first[n], count[n], weights[taps][n]
    tables: Int32
    blocks: int
    tile_rows: int
    shared_bytes: int

    @classmethod
    def of(cls, sources: Mapping[str, FrameSpec]) -> IngestPlan:
        """For these cameras, by the names of their views. Views without a camera are black tiles.

        Raises:
            ObservationError: a frame that can't be scaled into its view.
        """
        regions = view_regions()
        # Halved views have four times the work: they start first
        names = tuple(sorted(regions, key=lambda name: (not _halved(regions[name]), name)))
        filters = _Filters()
        fits = {name: fit_inside((spec.rows, spec.columns), CAMERA_SIZE) for name, spec in sources.items()}
        tile_rows, shared_bytes = _tile(sources, fits)
        rows, first_block = [], 0
        for name in names:
            region, spec = regions[name], sources.get(name)
            height, width = _size(region)
            across = -(-width // _TILE_COLUMNS)
            place = region[0].start, region[1].start, height, width, int(_halved(region))
            if spec is None:
                # The kernel gets no pixels for it, and looks at nothing else
                camera: Sequence[int] = (0,) * (VIEW_FIELDS - 7)
            else:
                camera = (*fits[name][0], *fits[name][1], *_frame(spec), *_offsets(filters, spec, fits[name][1]))
                camera = (*camera, *yuv_factors(spec.matrix, spec.full_range))
            rows.append((first_block, across, *place, *camera))
            first_block += across * -(-height // tile_rows)
        views = np.array(rows, np.int32)
        if views.shape != (len(names), VIEW_FIELDS):
            raise InternalError(f"a view has {views.shape[1]} fields, the kernel reads {VIEW_FIELDS}")
        return cls(names, views, filters.words(), first_block, tile_rows, shared_bytes)


class _Filters:
    """Filters one after the other, each of them once."""

    def __init__(self) -> None:
        self._parts: list[Int32] = []
        self._at: dict[tuple[int, int], int] = {}
        self._words = 0

    def place(self, source: int, target: int) -> int:
        """The word at which the filter from `source` to `target` pixels starts."""
        key = source, target
        if key not in self._at:
            first, count, weights = filter_of(source, target)
            self._at[key] = self._words
            for part in (first, count, weights.reshape(-1)):
                self._parts.append(part)
                self._words += part.size
        return self._at[key]

    def words(self) -> Int32:
        """All of them; one zero where there is none, for memory of no size can't be had."""
        return np.concatenate(self._parts) if self._parts else np.zeros(1, np.int32)


def filter_of(source: int, target: int) -> tuple[Int32, Int32, Int32]:
    """First pixel and number of taps of each position, int32 [target]; weights, int32 [taps, target].

    Between equal sizes the letterbox does nothing: one tap of weight 1, which is exact.
    """
    if source == target:
        identity = np.arange(target, dtype=np.int32)
        return identity, np.ones(target, np.int32), np.full((1, target), 1 << 22, np.int32)
    index, weight = triangle_filter(source, target)
    count = weight.shape[1] - np.argmax(weight[:, ::-1] != 0, axis=1)
    taps = int(count.max())
    return index[:, 0].astype(np.int32), count.astype(np.int32), np.ascontiguousarray(weight[:, :taps].T)


def _frame(spec: FrameSpec) -> tuple[int, ...]:
    return spec.rows, spec.columns, spec.pitch, spec.chroma_offset, FORMATS.index(spec.format)


def _offsets(filters: _Filters, spec: FrameSpec, inner: tuple[int, int]) -> tuple[int, int]:
    return filters.place(spec.columns, inner[1]), filters.place(spec.rows, inner[0])


def _tile(
    sources: Mapping[str, FrameSpec], fits: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
) -> tuple[int, int]:
    """Rows of a tile, and the shared memory that the largest one needs."""
    for tile_rows in _TILE_ROWS:
        most = max((_shared(spec, *fits[name], name, tile_rows) for name, spec in sources.items()), default=0)
        if most <= _SHARED_BYTES:
            return tile_rows, most
    raise ObservationError(
        "a camera image is too large for the kernel",
        expected=f"at most {_SHARED_BYTES >> 10} KiB of it behind a row of 32 pixels",
        got=", ".join(f"{name}: {spec.columns} x {spec.rows}" for name, spec in sources.items()),
    )


def _shared(spec: FrameSpec, start: tuple[int, int], inner: tuple[int, int], name: str, tile_rows: int) -> int:
    """Bytes of the narrow image of the largest tile of a view: the frame's rows behind it, and its columns."""
    region = view_regions()[name]
    zoom = 2 if _halved(region) else 1
    first, count, _ = filter_of(spec.rows, inner[0])
    most = 0
    for tile in range(0, _size(region)[0], tile_rows):
        top = max(tile * zoom - start[0], 0)
        bottom = min((tile + tile_rows) * zoom - start[0], inner[0])
        if top < bottom:
            most = max(most, int(first[bottom - 1] + count[bottom - 1] - first[top]))
    return most * min(_TILE_COLUMNS * zoom, inner[1]) * _PIXEL_BYTES


def _size(region: tuple[slice, slice]) -> tuple[int, int]:
    return region[0].stop - region[0].start, region[1].stop - region[1].start


def _halved(region: tuple[slice, slice]) -> bool:
    size = _size(region)
    if size == CAMERA_SIZE:
        return False
    if (2 * size[0], 2 * size[1]) != CAMERA_SIZE:
        raise InternalError(f"the camera kernel knows whole and halved views, not {size} of {CAMERA_SIZE}")
    return True
