"""A policy whose ticks are matrix products, as many as the operating point has forwards: its time is real, its actions
are zeros. For deadlines and stream priorities where there is no bundle. On the GPU through torch, else numpy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from motedge.runtime.deadline import OperatingPoint
from motedge.runtime.policy import ActionChunk
from motedge.runtime.request import SamplerSettings

ROWS, RATE_HZ = 32, 15.0
# Kernels of some 0.03 ms on an H100, as those of a generator's smaller projections
GPU_MATRIX, CPU_MATRIX = 2048, 256


class SyntheticPolicy:
    """Satisfies `motedge.runtime.deadline.policy.ActingPolicy`."""

    def __init__(self, device: str, priority: str, forward_ms: float) -> None:
        """`device`: "cuda" or "cpu"; `priority`: of the stream, "high" or "normal"; `forward_ms`: time of a forward."""
        self.settings = SamplerSettings(guidance_interval=(960.0, 1001.0))
        self._products = _gpu_products(priority) if device == "cuda" else _cpu_products()
        self._count = self._calibrate(forward_ms)

    def act(
        self,
        observation: Any,
        *,
        seed: int | None = None,
        settings: SamplerSettings | None = None,
        committed: Any = None,
    ) -> ActionChunk:
        """Works for `forwards + 1` forwards, one in the place of the image encoder, and answers with zeros."""
        began = time.perf_counter()
        point = OperatingPoint("tick", settings or self.settings)
        self._products(self._count * (point.forwards + 1))
        fields = (*(f"joint_{index}" for index in range(7)), "gripper")
        return ActionChunk(
            actions=np.zeros((ROWS, 8), np.float32),
            rate_hz=RATE_HZ,
            field_names=fields,
            units=("rad",) * 7 + ("fraction closed",),
            embodiment="droid_lerobot",
            seed=seed or 0,
            forwards=point.forwards,
            missing_views=(),
            timings_ms={"total_ms": (time.perf_counter() - began) * 1e3},
            details={},
        )

    def close(self) -> None:
        """Nothing to free."""

    def _calibrate(self, forward_ms: float) -> int:
        """Products that take `forward_ms`."""
        self._products(50)
        batches = []
        for _ in range(5):
            began = time.perf_counter()
            self._products(50)
            batches.append((time.perf_counter() - began) * 1e3 / 50)
        # The least disturbed one
        return max(1, round(forward_ms / min(batches)))


def _gpu_products(priority: str) -> Callable[[int], None]:
    import torch

    # torch's -1 is its highest priority, 0 its lowest
    stream = torch.cuda.Stream(priority=-1 if priority == "high" else 0)
    left = torch.randn(GPU_MATRIX, GPU_MATRIX, device="cuda", dtype=torch.float16)
    out = torch.empty_like(left)

    def products(count: int) -> None:
        with torch.cuda.stream(stream):
            for _ in range(count):
                torch.mm(left, left, out=out)
        stream.synchronize()

    return products


def _cpu_products() -> Callable[[int], None]:
    left = np.random.RandomState(0).rand(CPU_MATRIX, CPU_MATRIX).astype(np.float32)
    out = np.empty_like(left)

    def products(count: int) -> None:
        for _ in range(count):
            np.matmul(left, left, out=out)

    return products
