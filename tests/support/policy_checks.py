"""What a policy on a GPU must do when nothing goes wrong. Each check is told a bench: see policy_on_gpu.py.

Runs on Python 3.9.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from policy_reference import CUP, DOOR, SCENES, Scene, act, closest_pair, distance, observation

from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.policy import GpuOptions

# Relative L2 of the actions against fp32 on the CPU. fp16: rounding of three layers over up to 12 forwards, measured
# 0.0002 to 0.0012 with PyTorch and onnxruntime on a CPU. fp32: TensorRT may use TF32, whose products have 10 bits
TOLERANCE = {"fp16": 0.01, "bf16": 0.05, "fp32": 0.005}
# Allocators settle in the first ticks
WARM_TICKS = 50
# Of the device: nothing. Of the host: what Python's allocator may take back later
DEVICE_GROWTH_BYTES, HOST_GROWTH_BYTES = 0, 8 << 20
PASSES = 3
TIMED_TICKS = 200
BY_NAME: Dict[str, Scene] = {scene.name: scene for scene in SCENES}


def tolerance(bench: Any) -> float:
    """Of the variant's precision."""
    return TOLERANCE[bench.variant.rpartition("-")[2]]


def tick_of(policy: Any) -> Any:
    """The DeviceTick of a policy."""
    tick = policy._tick
    # What recovers and what keeps to one thread are each around the next
    while not hasattr(tick, "_cuda"):
        tick = tick.tick
    return tick


def check_agreement(bench: Any) -> None:
    """Guidance in its interval, always and never, other prompts, seeds and steps: the CPU's actions."""
    apart = closest_pair(bench.reference)
    bench.say("the reference can tell answers apart", 2 * tolerance(bench) < apart, closest=apart)
    with bench.load() as policy:
        for scene in SCENES:
            chunk = act(policy, scene)
            error = distance(chunk.actions, bench.reference[scene.name])
            passed = error < tolerance(bench) and chunk.forwards == scene.forwards
            bench.say(f"as on the CPU: {scene.name}", passed, relative_l2=error, forwards=chunk.forwards)
        bench.say("what it takes of memory is told", sum(tick_of(policy).memory_bytes().values()) > 0)


def check_graph(bench: Any) -> None:
    """With the captured graph and without: the same actions, and it says which."""
    scene = BY_NAME["always"]
    answers: Dict[bool, Any] = {}
    for captured in (True, False):
        with bench.load(gpu=GpuOptions(cuda_graph=captured)) as policy:
            chunks = [act(policy, scene) for _ in range(3)]
            answers[captured] = chunks[-1]
            same = all(np.array_equal(chunk.actions, chunks[0].actions) for chunk in chunks)
            bench.say(f"the same at every tick, graph {captured}", same)
    launches = {captured: chunk.details["launch"] for captured, chunk in answers.items()}
    error = distance(answers[True].actions, answers[False].actions)
    bench.say("captured or not, the same actions", error < 1e-6, relative_l2=error)
    one_graph = launches[True].startswith("one CUDA graph")
    # onnxruntime may replay graphs of its own instead, and says so
    said = one_graph if bench.engine.startswith("tensorrt") else launches[True] != launches[False] or not one_graph
    bench.say(
        "it says how work is launched",
        said and not launches[False].startswith("one CUDA graph"),
        launches=str(launches),
    )


def check_prompts(bench: Any) -> None:
    """Prompts change from tick to tick: none sees another's K and V, a known one costs no prefill."""
    first, second = BY_NAME["interval"], BY_NAME["another prompt"]
    with bench.load() as policy:
        chunks: List[Tuple[Scene, Any]] = [(scene, act(policy, scene)) for scene in (first, second) * 4]
        errors = [distance(chunk.actions, bench.reference[scene.name]) for scene, chunk in chunks]
        repeated = all(np.array_equal(chunk.actions, chunks[i % 2][1].actions) for i, (_, chunk) in enumerate(chunks))
        prefills = [chunk.details["prefills"] for _, chunk in chunks]
        bench.say("prompts change between ticks", max(errors) < tolerance(bench) and repeated, worst=max(errors))
        bench.say("a known prompt costs no prefill", prefills == [2, 1] + [0] * 6, prefills=prefills)
        long = CUP + " Then " + DOOR.lower()
        lengths = {policy.act(observation(text), seed=1).details["und_len"] for text in (CUP, DOOR, long)}
        again = act(policy, first)
        same = np.array_equal(again.actions, chunks[0][1].actions)
        bench.say("nor do prompts of other lengths disturb it", same and len(lengths) > 1, lengths=sorted(lengths))


def check_threads(bench: Any) -> None:
    """Another thread gets the same actions, or a clear refusal."""
    with bench.load() as policy:
        expected, found = act(policy, BY_NAME["interval"]).actions, {}

        def other() -> None:
            try:
                found["actions"] = act(policy, BY_NAME["interval"]).actions
            except Exception as error:  # noqa: BLE001 - shown below
                found["error"] = error

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        same = "actions" in found and np.array_equal(found["actions"], expected)
        after = np.array_equal(act(policy, BY_NAME["interval"]).actions, expected)
        bench.say("from another thread", same and after, error=str(found.get("error", "")))


def check_growth(bench: Any) -> None:
    """Many ticks, prompts changing: neither device nor host memory grows."""
    with bench.load() as policy:
        scenes = (BY_NAME["interval"], BY_NAME["another prompt"], BY_NAME["no guidance"])
        for number in range(WARM_TICKS):
            act(policy, scenes[number % 3])

        def ticks() -> None:
            for number in range(each):
                act(policy, scenes[number % 3])

        each, start = max(bench.ticks // PASSES, 1), time.perf_counter()
        grown, held = growth(lambda: _memory(policy), ticks)
        passed = grown["device"] <= DEVICE_GROWTH_BYTES and grown["host"] <= HOST_GROWTH_BYTES and grown["held"] == 0
        facts = {"ticks": each * PASSES, "seconds": round(time.perf_counter() - start, 2), "grown_bytes": grown}
        bench.say("many ticks, no growth", passed, held_bytes=held, **facts)


def growth(look: Callable[[], Dict[str, int]], work: Callable[[], None]) -> Tuple[Dict[str, int], int]:
    """What `work`, done in a few passes, has taken and not given back, and what is held at the end, in bytes.

    Of the host the least of all passes: a leak grows in each, while an allocator (and a simulated GPU, which keeps
    freed blocks for a while) takes pages now and then.
    """
    seen = [look()]
    for _ in range(PASSES):
        work()
        seen.append(look())
    grown = {key: value - seen[0][key] for key, value in seen[-1].items()}
    grown["host"] = min(after["host"] - before["host"] for before, after in zip(seen, seen[1:]))
    return grown, seen[-1]["held"]


def check_host_time(bench: Any) -> None:
    """What the host costs: a tick less what the GPU's own clock says of the encoder and of all steps."""
    with bench.load() as policy:
        for _ in range(10):
            act(policy, BY_NAME["interval"])
        timings = [act(policy, BY_NAME["interval"]).timings_ms for _ in range(TIMED_TICKS)]
        values = {key: round(1e3 * median(t[key] for t in timings), 1) for key in timings[0]}
        encoder_us = _encoder_us(policy)
        outside = values["total_ms"] - values["gen_ms"] - encoder_us
        shown = {key.replace("_ms", "_us"): value for key, value in values.items()}
        facts = {"ticks": TIMED_TICKS, "medians": shown, "encoder_us": encoder_us, "outside_us": round(outside, 1)}
        bench.say("time outside the engines", outside > 0, **facts)


def check_closing(bench: Any) -> None:
    """Loading and closing again and again gives everything back."""
    from motedge.runtime.cuda.choose import open_cuda

    cuda = open_cuda()
    with cuda.current():
        used = []
        for _ in range(4):
            with bench.load() as policy:
                act(policy, BY_NAME["interval"])
            free, total = cuda.memory_info()
            used.append(total - free)
    cuda.close()
    # The first leaves what the libraries load once a process
    bench.say("closing gives everything back", used[-1] <= used[1], used_bytes=used)


def _memory(policy: Any) -> Dict[str, Any]:
    tick = tick_of(policy)
    with tick._cuda.current():
        free, total = tick._cuda.memory_info()
    held = {purpose: size for purpose, size in tick.memory_bytes().items() if purpose != PINNED}
    return {"device": total - free, "host": resident_bytes(), "held": sum(held.values())}


def resident_bytes() -> int:
    """Host memory of this process, from /proc."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _encoder_us(policy: Any) -> float:
    """One run of the encoder, by the GPU's clock, median of many."""
    tick, taken = tick_of(policy), []
    cuda, stream = tick._cuda, tick._loop.stream
    with cuda.current():
        start, end = cuda.event(), cuda.event()
        for _ in range(50):
            start.record(stream)
            tick._encoder.encode(stream)
            end.record(stream)
            stream.synchronize()
            taken.append(1e3 * end.elapsed_ms(start))
    return round(median(taken), 1)


CHECKS: Tuple[Callable[[Any], None], ...] = (
    check_agreement,
    check_graph,
    check_prompts,
    check_threads,
    check_growth,
    check_host_time,
    check_closing,
)
