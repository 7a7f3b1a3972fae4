"""numpy functions with the argument lists of the kernels in kernels/ingest.cu; see kernel_twins.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_arguments import expect_types

Array = Any
# struct View of kernels/ingest.cu
FIELDS = (
    *("first_block", "tiles_across", "top", "left", "height", "width", "halved"),
    *("inner_top", "inner_left", "inner_rows", "inner_columns"),
    *("rows", "columns", "pitch", "chroma", "format", "columns_filter", "rows_filter"),
    *("black", "gain", "red_cr", "green_cb", "green_cr", "blue_cb"),
)


def ingest_cameras(cuda: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """motedge_ingest_cameras."""
    values = expect_types(arguments, "pppp" + "i" + "ppp" + "iiiii")
    frames, views, count, tables, composed, canvas = values[:3], *values[3:8]
    sizes = values[8:]
    image = np.zeros((*sizes[2:4], 3), np.uint8)
    blocks = 0
    for row, frame in zip(cuda.view(views, (count, len(FIELDS)), np.int32), frames):
        view = dict(zip(FIELDS, row.tolist()))
        assert view["first_block"] == blocks and view["tiles_across"] == -(-view["width"] // 32)
        blocks += view["tiles_across"] * -(-view["height"] // block[1])
        if frame:
            region = image[view["top"] : view["top"] + view["height"], view["left"] : view["left"] + view["width"]]
            region[:] = _view(cuda, view, frame, tables)
    assert grid == (blocks, 1, 1) and block[0] == 32 and block[2] == 1
    if canvas:
        _place(cuda, image, canvas, sizes)
    else:
        cuda.view(composed, image.shape, np.uint8)[:] = image


def ingest_image(cuda: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """motedge_ingest_image."""
    values = expect_types(arguments, "pi" + "p" * 7 + "iiiii")
    source, pitch, taps, canvas, sizes = values[0], values[1], values[2:8], values[8], values[9:]
    rows, columns = sizes[2:4]
    assert block == (32, 8, 1) and grid == (-(-columns // 32), -(-rows // 8), 1)
    if not taps[0]:
        _place(cuda, _interleaved(cuda, source, rows, columns, pitch), canvas, sizes)
        return
    before, after = (cuda.view(taps[i], rows, np.int32) for i in (0, 1))
    below = cuda.view(taps[2], rows, np.float32)[:, None, None]
    left, right = (cuda.view(taps[i], columns, np.int32) for i in (3, 4))
    share = cuda.view(taps[5], columns, np.float32)[None, :, None]
    pixels = _interleaved(cuda, source, after.max() + 1, right.max() + 1, pitch).astype(np.float32)
    narrow = _fused(pixels[:, left], np.float32(1) - share, pixels[:, right] * share)
    blended = _fused(narrow[before], np.float32(1) - below, narrow[after] * below)
    _place(cuda, blended.astype(np.uint8), canvas, sizes)


def _view(cuda: Any, view: dict[str, int], frame: int, tables: int) -> Array:
    """A camera's part of the composed image."""
    rows, columns = view["inner_rows"], view["inner_columns"]
    narrow = _filtered(cuda, _rgb(cuda, view, frame), tables + 4 * view["columns_filter"], columns, 1)
    inner = _filtered(cuda, narrow, tables + 4 * view["rows_filter"], rows, 0)
    zoom = 1 + view["halved"]
    boxed = np.zeros((view["height"] * zoom, view["width"] * zoom, 3), np.int32)
    boxed[view["inner_top"] : view["inner_top"] + rows, view["inner_left"] : view["inner_left"] + columns] = inner
    if view["halved"]:
        boxed = (boxed[::2, ::2] + boxed[1::2, ::2] + boxed[::2, 1::2] + boxed[1::2, 1::2]) >> 2
    return boxed


def _rgb(cuda: Any, view: dict[str, int], frame: int) -> Array:
    """The frame as RGB, int64."""
    rows, columns, pitch = view["rows"], view["columns"], view["pitch"]
    if view["format"] < 2:
        image = _interleaved(cuda, frame, rows, columns, pitch).astype(np.int64)
        return image if view["format"] == 0 else image[..., ::-1]
    luma = _strided(cuda, frame, rows, columns, pitch).astype(np.int64)
    chroma = _strided(cuda, frame + view["chroma"], rows // 2, columns, pitch).astype(np.int64) - 128
    row, column = np.arange(rows)[:, None] // 2, np.arange(columns)[None] // 2 * 2
    cb, cr = chroma[row, column], chroma[row, column + 1]
    y = (luma - view["black"]) * view["gain"] + (1 << 19)
    green = view["green_cb"] * cb + view["green_cr"] * cr
    return (np.stack([y + view["red_cr"] * cr, y + green, y + view["blue_cb"] * cb], -1) >> 20).clip(0, 255)


def _filtered(cuda: Any, image: Array, table: int, target: int, axis: int) -> Array:
    first, count = cuda.view(table, (2, target), np.int32)
    weights = cuda.view(table + 8 * target, (count.max(), target), np.int32)
    # Whole numbers below 2**53: fp64 is exact, and fast
    matrix = np.zeros((target, image.shape[axis]))
    for tap, weight in enumerate(weights):
        used = np.flatnonzero(tap < count)
        matrix[used, first[used] + tap] = weight[used]
    total = np.moveaxis(np.tensordot(matrix, image.astype(np.float64), (1, axis)), 0, axis)
    return (total.astype(np.int64) + (1 << 21) >> 22).clip(0, 255)


def _place(cuda: Any, image: Array, canvas: int, sizes: list[int]) -> None:
    """Pixel by pixel of the canvas: where it comes from."""
    rows, columns, height, width, repeat_edge = sizes
    assert image.shape == (height, width, 3)

    def sources(size: int, content: int) -> Array:
        position = np.arange(size)
        return np.minimum(position, content - 1 if repeat_edge else np.abs(2 * (content - 1) - position))

    padded = image[sources(rows, height)][:, sources(columns, width)]
    levels = padded.astype(np.float32) / np.float32(127.5) - np.float32(1)
    cuda.view(canvas, (3, rows, columns), np.float32)[:] = levels.transpose(2, 0, 1)


def _strided(cuda: Any, pointer: int, rows: int, row_bytes: int, pitch: int) -> Array:
    # No byte behind the last row is needed
    flat = cuda.view(pointer, (rows - 1) * pitch + row_bytes, np.uint8)
    return np.lib.stride_tricks.as_strided(flat, (rows, row_bytes), (pitch, 1))


def _interleaved(cuda: Any, pointer: int, rows: int, columns: int, pitch: int) -> Array:
    return _strided(cuda, pointer, rows, 3 * columns, pitch).reshape(rows, columns, 3)


def _fused(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b + c).astype(np.float32)


KERNELS = {"motedge_ingest_cameras": ingest_cameras, "motedge_ingest_image": ingest_image}
