"""The CUDA kernels by the GPU's clock: the solver's step against a copy of as many bytes, cameras in microseconds.

    python benchmarks/kernels_gpu.py --results benchmarks/results

Needs the compiled kernels (scripts/build_kernels.sh), nvcc for the copy, cuda-bindings and numpy. Launches are captured
in a CUDA graph and timed by events around its replays, so a figure includes the gap between two kernels of a graph.
"cold": each launch works on another set of buffers, all of them four times the second-level cache at least. "warm":
always the same set, which at 1 M elements lies in that cache.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from conditions import load_average
from gpu_conditions import collect_gpu_conditions, gpu_id

from motedge.errors import HostError, MotedgeError
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.kernels.frame_spec import FrameSpec
from motedge.runtime.kernels.ingest import CameraIngest
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.solver import KernelSolver
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc_coefficients import UniPCCoefficients

# Vision [C, T, h, w] and action [A, Z]: 1 Mi and 16 Mi elements; Edge's DROID policy (latent of 33 frames of 544 x 640)
SHAPES = {
    "1 Mi": ((64, 16, 32, 32), (33, 64)),
    "16 Mi": ((256, 16, 64, 64), (33, 64)),
    "policy": ((48, 9, 34, 40), (33, 64)),
}
# The policy's defaults (SamplerSettings)
STEPS, SHIFT, SCALE = 4, 5.0, 3.0
# Four times the 50 MB of an H100
COLD_BYTES = 200_000_000
CANVAS = (544, 640)
CAMERAS = {"three 1280x720 NV12": FrameSpec(720, 1280, "nv12"), "three 640x360 RGB": FrameSpec(360, 640)}
LARGE_COPY_BYTES = 1 << 30


class Bench:
    """A GPU, its kernels, and how launches on it are timed."""

    def __init__(self, cuda: Cuda, library: KernelLibrary, copy_image: bytes, launches: int, rounds: int) -> None:
        self.cuda, self.library, self.launches, self.rounds = cuda, library, launches, rounds
        self.stream: Stream = cuda.stream()
        self.copy = cuda.kernel(copy_image, "copy_float4")
        # Page-locked arrays for uploads, by their size
        self.staging: dict[int, Any] = {}
        self._held: list[Callable[[], None]] = []
        self._start, self._end = cuda.event(), cuda.event()

    def allocate(self, nbytes: int) -> int:
        """Zeroed device memory, freed by `free`."""
        memory = self.cuda.allocate(nbytes, "benchmark")
        self._held.append(memory.free)
        self.cuda.zero(memory.pointer, nbytes, self.stream)
        return memory.pointer

    def keep(self, made: Any) -> Any:
        """Closes it with `free`."""
        self._held.append(made.close)
        return made

    def free(self) -> None:
        """Gives back what was allocated or kept since the last time."""
        for give_back in self._held:
            give_back()
        self._held.clear()

    def microseconds(self, works: Sequence[Callable[[], None]]) -> dict[str, float]:
        """Of one launch, `works` in turn; median, minimum and maximum over the rounds."""
        count = math.ceil(self.launches / len(works)) * len(works)

        def enqueue() -> None:
            for number in range(count):
                works[number % len(works)]()

        enqueue()
        self.stream.synchronize()
        graph = self.cuda.capture(self.stream, enqueue)
        taken = []
        for number in range(self.rounds + 3):
            self._start.record(self.stream)
            graph.launch(self.stream)
            self._end.record(self.stream)
            self._end.synchronize()
            if number >= 3:
                taken.append(1e3 * self._end.elapsed_ms(self._start) / count)
        graph.close()
        spread = {"median_us": statistics.median(taken), "min_us": min(taken), "max_us": max(taken)}
        return {name: round(value, 3) for name, value in spread.items()}


def main() -> int:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--launches", type=int, default=200, help="in one graph")
    parser.add_argument("--rounds", type=int, default=30, help="replays of each graph, after three that don't count")
    args = parser.parse_args()
    try:
        conditions = collect_gpu_conditions()
        cuda = open_cuda()
        with cuda.current():
            bench = Bench(cuda, KernelLibrary.load(cuda), compile_copy(cuda), args.launches, args.rounds)
            result = {"schema": "motedge.benchmark/v1", "benchmark": "kernels_gpu", **measure(bench, conditions)}
        cuda.close()
    except MotedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"kernels_{gpu_id(str(conditions['device']))}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)
    return 0


def measure(bench: Bench, conditions: dict[str, Any]) -> dict[str, Any]:
    """Everything, as JSON."""
    cuda, record = bench.cuda, bench.library.record
    facts = {"provider": cuda.provider, "driver_cuda": list(cuda.facts.driver_cuda), "toolkit": record.toolkit}
    large = shown(measure_large_copy(bench))
    solver = []
    for name, (vision, action) in SHAPES.items():
        for guided in (True, False):
            for cold in (True, False):
                row = {"state": name, **measure_solver(bench, StateLayout(vision, action), guided, cold)}
                row["of_large_copy"] = share(row, large)
                solver.append(shown(row))
    cameras = [
        shown({"frames": name, **measure_cameras(bench, spec, cold)})
        for name, spec in CAMERAS.items()
        for cold in (True, False)
    ]
    conditions = {**conditions, **facts, "load_after": load_average(), "launches": bench.launches}
    return {"conditions": conditions, "large_copy": large, "solver": solver, "cameras": cameras}


def measure_large_copy(bench: Bench) -> dict[str, Any]:
    """The driver's copy of 1 GiB within the device's memory; bytes are those read and written."""
    source, destination = bench.allocate(LARGE_COPY_BYTES), bench.allocate(LARGE_COPY_BYTES)
    launches, bench.launches = bench.launches, 4
    times = bench.microseconds([lambda: bench.cuda.copy(destination, source, LARGE_COPY_BYTES, bench.stream)])
    bench.launches = launches
    bench.free()
    return {**times, "bytes": 2 * LARGE_COPY_BYTES, **rate(2 * LARGE_COPY_BYTES, times)}


def measure_solver(bench: Bench, layout: StateLayout, guided: bool, cold: bool) -> dict[str, Any]:
    """Step 1 of the schedule, which moves most; then a copy kernel that reads and writes as many bytes in all."""
    first = solver_of(bench, layout)
    moved = first.moved_bytes(1, guided)
    sets = max(2, math.ceil(COLD_BYTES / moved)) if cold else 1
    solvers = [first, *(solver_of(bench, layout) for _ in range(sets - 1))]
    times = bench.microseconds([lambda s=one: s.step(1, guided, bench.stream) for one in solvers])
    bench.free()
    half = moved // 32 * 16
    copies = [copy_of(bench, half) for _ in range(sets)]
    copy_times = bench.microseconds(copies)
    bench.free()
    copied = {"bytes": 2 * half, **copy_times, **rate(2 * half, copy_times)}
    row = {
        "elements": layout.size,
        "guided": guided,
        "cache": "cold" if cold else "warm",
        "bytes": moved,
        **times,
        **rate(moved, times),
    }
    return {**row, "copy_kernel": copied, "of_copy_kernel": share(row, copied)}


def solver_of(bench: Bench, layout: StateLayout) -> KernelSolver:
    """A solver on buffers of its own: random velocities, the first frame and the first action row clean."""
    counts = dict.fromkeys(("state", "v_cond", "v_uncond", "clean"), layout.size)
    counts.update(noise=layout.noise_count, t=1, findings=STEPS)
    counts.update(vision_noisy=layout.vision_shape[1], action_noisy=layout.action_shape[0])
    at = {field.name: bench.allocate(4 * counts[field.name]) for field in fields(SolverBuffers)}
    random = np.random.default_rng(0)
    for name in ("v_cond", "v_uncond", "vision_noisy", "action_noisy"):
        values = np.ones(counts[name], np.float32)
        if name.startswith("v_"):
            values = random.standard_normal(counts[name], dtype=np.float32)
        else:
            values[0] = 0
        upload(bench, at[name], values)
    table = UniPCCoefficients.from_schedule(FlowSchedule(STEPS, SHIFT))
    raw_dim = min(8, layout.action_shape[1])
    args = bench.cuda, bench.library, layout, SolverBuffers(**at), table, SCALE, raw_dim, bench.stream
    return bench.keep(KernelSolver(*args))  # type: ignore[no-any-return]


def copy_of(bench: Bench, nbytes: int) -> Callable[[], None]:
    """Launches the copy kernel on buffers of its own."""
    destination, source = bench.allocate(nbytes), bench.allocate(nbytes)
    blocks = -(-nbytes // (16 * 256))
    arguments = [np.uint64(destination), np.uint64(source), np.uint32(nbytes // 16)]
    return lambda: bench.cuda.launch(bench.copy, blocks, 256, arguments, bench.stream)


def measure_cameras(bench: Bench, spec: FrameSpec, cold: bool) -> dict[str, Any]:
    """Three cameras onto the policy's canvas."""
    sources = dict.fromkeys(VIEW_NAMES, spec)
    ingest = bench.keep(CameraIngest(bench.cuda, bench.library, sources, COMPOSED_SIZE, CANVAS, bench.stream))
    out_bytes = 4 * 3 * CANVAS[0] * CANVAS[1]
    moved = 3 * spec.nbytes + out_bytes
    pixels = np.random.default_rng(0).integers(0, 256, spec.nbytes, np.uint8)
    works = []
    for _ in range(math.ceil(COLD_BYTES / moved) if cold else 1):
        frames = {name: bench.allocate(spec.nbytes) for name in VIEW_NAMES}
        for pointer in frames.values():
            upload(bench, pointer, pixels)
        out = bench.allocate(out_bytes)
        works.append(lambda f=frames, o=out: ingest.enqueue(f, o, bench.stream))
    times = bench.microseconds(works)
    bench.free()
    return {"cache": "cold" if cold else "warm", "bytes": moved, **times, **rate(moved, times)}


def upload(bench: Bench, pointer: int, values: Any) -> None:
    """Copies an array through one page-locked array of its size."""
    staging = bench.staging.get(values.nbytes)
    if staging is None:
        staging = bench.staging[values.nbytes] = bench.cuda.pinned((values.nbytes,), np.uint8)
    staging[:] = values.view(np.uint8)
    bench.cuda.copy(pointer, staging.ctypes.data, values.nbytes, bench.stream)
    bench.stream.synchronize()


def rate(nbytes: int, times: dict[str, float]) -> dict[str, float]:
    """Bytes over the median time."""
    return {"gb_s": round(nbytes / times["median_us"] / 1e3, 1)}


def share(row: dict[str, Any], of: dict[str, Any]) -> float:
    """A row's bytes a second as a share of another's."""
    return round(row["bytes"] / row["median_us"] * of["median_us"] / of["bytes"], 3)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Prints a row, and returns it."""
    print(json.dumps(row), flush=True)
    return row


def compile_copy(cuda: Cuda) -> bytes:
    """The copy kernel for this GPU."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        raise HostError("the copy kernel can't be compiled", got="no nvcc", fix="install the CUDA toolkit")
    source = Path(__file__).with_name("kernels_copy.cu")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "copy.cubin"
        sm = cuda.facts.compute_capability.replace(".", "")
        subprocess.run([nvcc, "-cubin", "-O3", f"-arch=sm_{sm}", "-o", str(out), str(source)], check=True)
        return out.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
