"""Memory of a policy on a GPU: what it accounts for against what the driver gave, and growth over many ticks.

Without torch, whose allocator would hold memory of its own in the same process.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from statistics import median
from typing import Any

from gpu_scene import SEED, GpuScene, Report

from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.policy import load_policy

# Ticks at most, and seconds after which it is enough
MOST_TICKS, MOST_S = 1000, 40.0
# Allocators settle in the first ticks
WARM_TICKS = 20
SAMPLES = 20


def run(scene: GpuScene, report: Report) -> None:
    """Loads, ticks, and looks at the driver's and the host's memory on the way."""
    cuda = open_cuda()
    with contextlib.closing(cuda), cuda.current():
        before, total = cuda.memory_info()
        loading = time.perf_counter()
        engine = "onnxruntime-cuda" if scene.device == "cuda" else "onnxruntime"
        options: dict[str, Any] = {"check": "size", "seed": SEED, "deterministic_seed": True}
        with load_policy(scene.bundle.root, engine=engine, variant=scene.variant, **options) as policy:
            load_s, first = time.perf_counter() - loading, time.perf_counter()
            policy.act(scene.observation)
            first_ms = 1e3 * (time.perf_counter() - first)
            for _ in range(WARM_TICKS):
                policy.act(scene.observation)
            used = before - cuda.memory_info()[0]
            report.put("load", {"load_s": round(load_s, 2), "first_tick_ms": round(first_ms, 1)})
            report.attempt("memory", lambda: accounted(policy, used, total))
            report.put("growth", growth(scene, policy, cuda))
        report.put("not_given_back_bytes", before - cuda.memory_info()[0])


def accounted(policy: Any, used: int, total: int) -> dict[str, Any]:
    """Bytes by purpose beside what the driver says is used; page-locked memory is the host's."""
    held: dict[str, int] = policy.memory_bytes()
    on_device = sum(size for purpose, size in held.items() if purpose != PINNED)
    return {
        "by_purpose": held,
        "accounted_bytes": on_device,
        "used_bytes": used,
        "not_accounted_bytes": used - on_device,
        "gpu_bytes": total,
        "note": "used counts the engine library's kernels, workspace and handles too, which nobody accounts for",
    }


def growth(scene: GpuScene, policy: Any, cuda: Any) -> dict[str, Any]:
    """Free device memory and resident host memory over the ticks."""
    start, series, taken = time.perf_counter(), [], []
    done = 0
    for done in range(1, MOST_TICKS + 1):
        tick = time.perf_counter()
        policy.act(scene.observation)
        taken.append(1e3 * (time.perf_counter() - tick))
        if done % (MOST_TICKS // SAMPLES) == 1:
            series.append({"tick": done, "device_used_bytes": _used(cuda), "resident_bytes": resident_bytes()})
        if time.perf_counter() - start > MOST_S:
            break
    series.append({"tick": done, "device_used_bytes": _used(cuda), "resident_bytes": resident_bytes()})
    first, last = series[0], series[-1]
    return {
        "ticks": done,
        "median_ms": round(median(taken), 3),
        "max_ms": round(max(taken), 3),
        "device_growth_bytes": last["device_used_bytes"] - first["device_used_bytes"],
        "resident_growth_bytes": last["resident_bytes"] - first["resident_bytes"],
        "series": series,
    }


def resident_bytes() -> int:
    """Host memory of this process, from /proc."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _used(cuda: Any) -> int:
    free, total = cuda.memory_info()
    return int(total - free)
