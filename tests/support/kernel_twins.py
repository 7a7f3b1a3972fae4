"""numpy functions with the argument lists of the CUDA kernels, for `HostCuda(kernels=KERNELS)`.

They read their arguments as the kernels do: tables of bytes, sizes in int32, flags as bits. So the Python side of the
kernels runs without a GPU, and a wrong argument shows. What they compute is written anew, from the kernels' text.
"""

from __future__ import annotations

from typing import Any

import ingest_twins
import numpy as np
from kernel_arguments import expect_types

Array = Any


def solver_begin(cuda: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """motedge_solver_begin of kernels/solver.cu."""
    state, noise, clean, vision_noisy, action_noisy, t, findings, table, steps, *shape = expect_types(
        arguments, "pppppppp" + "i" * 9
    )
    flat = _Flat(cuda, grid, block, shape)
    drawn = cuda.view(noise, max(flat.vision_count, flat.action_count), np.float32)
    out = flat.vector(state)
    out[:] = 0
    out[: flat.vision_count] = drawn[: flat.vision_count]
    out[flat.actions] = drawn[: flat.action_count]
    flat.hold(out, clean, vision_noisy, action_noisy)
    cuda.view(findings, steps, np.uint32)[:] = 0
    cuda.view(t, 1, np.float32)[0] = cuda.view(table, (steps, 16), np.float32)[0, 2]


def solver_step(cuda: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """motedge_solver_step of kernels/solver.cu."""
    values = expect_types(arguments, "p" * 11 + "iiiui" + "i" * 8)
    state, v_cond, v_uncond, clean, vision_noisy, action_noisy, t, findings, corrected, history, table = values[:11]
    k, steps, guided, terms, kept = values[11:16]
    flat = _Flat(cuda, grid, block, values[16:])
    rows = cuda.view(table, (steps, 16), np.float32)
    if k + 1 < steps:
        cuda.view(t, 1, np.float32)[0] = rows[k + 1, 2]
    sigma, scale = rows[k, 0], rows[k, 1]
    x, c = flat.vector(state), flat.vector(corrected)
    ring = cuda.view(history, (kept, flat.size), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        v = flat.vector(v_cond).copy()
        finding = 0 if np.isfinite(v[flat.inside]).all() else 1
        if guided:
            u = flat.vector(v_uncond)
            finding |= 0 if np.isfinite(u[flat.inside]).all() else 2
            v = (v - u) * scale + u
        m = {0: x - v * sigma}
        for back in range(1, 4):
            if terms >> (2 + back) & 1 or (back < 3 and terms >> (7 + back) & 1):
                m[back] = ring[(k - back) % kept]
        c_k = _sum(rows[k, 4:10], terms, lambda i: x if i == 0 else c if i == 1 else m[i - 2])
        following = _sum(rows[k, 10:14], terms >> 6, lambda i: c_k if i == 0 else m[i - 1])
    x[:] = following
    flat.hold(x, clean, vision_noisy, action_noisy)
    if terms >> 10 & 1:
        c[:] = c_k
    if terms >> 11 & 1:
        ring[k % kept] = m[0]
    cuda.view(findings, steps, np.uint32)[k] |= finding


def _sum(factors: Array, bits: int, term: Any) -> Array:
    """Of the terms that have a bit, in order, each product and each sum rounded to fp32."""
    total = None
    for i, factor in enumerate(factors):
        if bits >> i & 1:
            product = term(i) * factor
            total = product if total is None else total + product
    assert total is not None and total.dtype == np.float32
    return total


class _Flat:
    """struct StateShape, and whether the grid covers it."""

    def __init__(self, cuda: Any, grid: Any, block: Any, shape: list[int]) -> None:
        self._cuda = cuda
        self.vision_count, self.frame, self.frames, self._action_offset = shape[:4]
        self.action_count, self.channels, self.raw_dim, self.size = shape[4:]
        assert block == (256, 1, 1), "the kernel was compiled for 256 threads"
        assert 4 * 256 * grid[0] >= self.size > 4 * 256 * (grid[0] - 1)
        self.actions = slice(self._action_offset, self._action_offset + self.action_count)
        self.inside = np.zeros(self.size, bool)
        self.inside[: self.vision_count] = True
        self.inside[self.actions] = True

    def vector(self, pointer: int) -> Array:
        return self._cuda.view(pointer, self.size, np.float32)

    def hold(self, out: Array, clean: int, vision_noisy: int, action_noisy: int) -> None:
        """Clean positions, unused channels, gaps."""
        values = self.vector(clean)
        element = np.arange(self.vision_count)
        frame = element // self.frame % self.frames
        held = np.flatnonzero(self._cuda.view(vision_noisy, self.frames, np.float32)[frame] == 0)
        out[held] = values[held]
        rows = self.action_count // self.channels
        row, channel = np.divmod(np.arange(self.action_count), self.channels)
        held = np.flatnonzero(self._cuda.view(action_noisy, rows, np.float32)[row] == 0)
        out[self.actions][held] = values[self.actions][held]
        out[self.actions][channel >= self.raw_dim] = 0
        out[~self.inside] = 0


KERNELS = {
    "motedge_solver_begin": solver_begin,
    "motedge_solver_step": solver_step,
    **ingest_twins.KERNELS,
}
