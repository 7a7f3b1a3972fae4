"""What a generator on a GPU must do. Each check is told a bench: see generate_on_gpu.py.

Runs on Python 3.9.
"""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from generate_reference import BY_NAME, SCENES, answer, closest_pair, distance, of_scene
from policy_checks import PASSES, growth, resident_bytes
from policy_failures import _copy, _hogged, _own_cuda, _refusal, _told, _used

from motedge.bundle import Bundle
from motedge.errors import HostError, UsageError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.generate.device_graphs import DeviceGraphs
from motedge.runtime.policy import GpuOptions
from motedge.runtime.vae import VideoDecoder

# Relative L2 against fp32 on the CPU: three to five steps, of which guidance of 3 multiplies the rounding. fp32:
# TensorRT may use TF32, whose products have 10 bits
TOLERANCE = {"fp16": 0.02, "bf16": 0.08, "fp32": 0.005}
# Of pictures: half a level of 255 is rounding
PICTURES = 0.005
# The same engine, asked another way
SAME = 1e-5
HOST_GROWTH_BYTES = 16 << 20
CHUNKS = 12


def tolerance(bench: Any, what: str = "latents") -> float:
    """Of the variant's precision."""
    return TOLERANCE[bench.variant.rpartition("-")[2]] + (PICTURES if what == "pictures" else 0.0)


def graphs_of(generator: Any) -> DeviceGraphs:
    """What a generator on a GPU holds."""
    held = generator._engines[-1]
    if not isinstance(held, DeviceGraphs):
        raise TypeError(f"not on a GPU: {held}")
    return held


def check_agreement(bench: Any) -> None:
    """Every mode, guidance, step caches, distilled, sound: the CPU's latents, actions, pictures and waveform."""
    apart = closest_pair(bench.reference)
    bench.say("the reference can tell answers apart", 2 * tolerance(bench) < apart, closest=apart)
    for sound in (False, True):
        with bench.load(sound=sound) as generator:
            for scene in SCENES:
                if scene.sound == sound:
                    _agree(bench, generator, scene)
            bench.say(
                f"what it takes of memory is told{', with sound' if sound else ''}",
                sum(generator.memory_bytes().values()) > 0,
                held_bytes=generator.memory_bytes(),
            )


def _agree(bench: Any, generator: Any, scene: Any) -> None:
    # The decoder may move the workspace after the first, the second is then the first of its kind again
    made = [scene.ask(generator) for _ in range(3)]
    found, expected = answer(generator, scene, made[-1]), of_scene(bench.reference, scene)
    errors = {what: distance(found[what], expected[what]) for what in expected if what != "forwards"}
    close = all(error < tolerance(bench, what) for what, error in errors.items())
    seas = "SeaCache" in scene.name
    # Which steps SeaCache leaves out may turn on a rounding
    counted = seas or int(found["forwards"]) == int(expected["forwards"])
    passed = close and counted and found.keys() == expected.keys()
    launch = made[-1].counters.launch
    bench.say(f"as on the CPU: {scene.name}", passed, relative_l2=errors, launch=launch)
    bench.say(f"the same each time: {scene.name}", all(np.array_equal(m.latents, made[0].latents) for m in made))
    if bench.engine.startswith("tensorrt") or scene.launch != "one CUDA graph":
        bench.say(f"launched as it should be: {scene.name}", launch.startswith(scene.launch), launch=launch)


def check_watching(bench: Any) -> None:
    """Watched step by step, with previews and a chunk of another video between: the same latents."""
    with bench.load() as generator:
        for name in ("a video", "fixed step cache", "SeaCache", "policy"):
            scene, views = BY_NAME[name], []
            plain = scene.ask(generator)
            beside = generator.frames(plain.latents)
            pieces: List[Any] = [next(beside)]

            def watch(view: Any, views: List[Any] = views, pieces: List[Any] = pieces, beside: Any = beside) -> None:
                views.append((view.step, view.clean_vision(), generator.preview(view.clean_vision())))
                pieces.extend(piece for _, piece in zip(range(1), beside))

            made = scene.ask(generator, watch)
            error = distance(made.latents, plain.latents)
            steps = len(views) == made.settings.steps == len(made.timings.steps)
            bench.say(
                f"watched: {name}",
                error < SAME and steps and made.counters.launch.startswith("step by step"),
                relative_l2=error,
                step_ms=[round(step.cond_ms + (step.uncond_ms or 0.0), 3) for step in made.timings.steps],
            )
            # The last step leaves what the network took the result to be
            last = distance(views[-1][1], made.latents)
            bench.say(f"the last view is the result: {name}", last < 0.2, relative_l2=last)
            whole = np.concatenate(list(generator.frames(plain.latents)))
            same = np.array_equal(np.concatenate([*pieces, *beside]), whole)
            bench.say(f"another video's chunks between: {name}", same)


def check_captured(bench: Any) -> None:
    """With CUDA graphs and without, with the compiled kernels and without: the same latents."""
    scene, found, launches = BY_NAME["a video"], {}, {}
    for name, options in (("plain", {}), ("no graph", {"cuda_graph": False}), ("no kernels", {"kernels": False})):
        with bench.load(gpu=GpuOptions(**options)) as generator:
            for _ in range(3):
                made = scene.ask(generator)
            found[name], launches[name] = made.latents, made.counters.launch
    errors = {name: distance(value, found["plain"]) for name, value in found.items()}
    said = not launches["no graph"].startswith("one CUDA graph")
    # TensorRT contracts the sums of solver_step's engine, and the last bit of a state decides what rounds where in fp16
    exact = SAME if bench.engine == "onnxruntime-cuda" else tolerance(bench)
    same = errors["no graph"] < SAME and errors["no kernels"] < exact
    bench.say("launched whichever way", same and said, relative_l2=errors, launches=launches)


def check_chunks(bench: Any) -> None:
    """A video in chunks is the whole one, and what it saves that the caches stay on the GPU."""
    random = np.random.RandomState(3)
    with bench.load() as generator:
        shape = generator.shape
        latents = random.standard_normal((shape.channels, min(CHUNKS, shape.latents[1]), *shape.grid))
        latents = latents.astype(np.float32)
        graphs = graphs_of(generator)
        generator.require_decoder()
        decoder = generator._decoder
        names = ("vae_decoder_first", "vae_decoder_next")

        def compare() -> None:
            carried = VideoDecoder(None, (graphs.engine(names[0]), graphs.engine(names[1])))
            try:
                chunked = _timed(lambda: np.concatenate([c.copy() for c in decoder.sharing().stream(latents)], axis=1))
                over = _timed(lambda: np.concatenate([c.copy() for c in carried.stream(latents)], axis=1))
                whole = decoder.sharing().decode(latents)
            finally:
                carried.close()
            errors = {"whole": distance(chunked[0], whole), "over the host": distance(chunked[0], over[0])}
            passed = errors["whole"] < tolerance(bench) and errors["over the host"] < SAME
            times = {"kept": round(chunked[1], 2), "over the host": round(over[1], 2)}
            bench.say("a video in chunks is the whole one", passed, relative_l2=errors, video_ms=times)

        generator._turns.chunk(compare)


def _timed(work: Callable[[], Any]) -> Tuple[Any, float]:
    """The result, and the median of five runs after two, in ms."""
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        result = work()
        taken.append(1e3 * (time.perf_counter() - start))
    return result, median(taken[2:])


def check_threads(bench: Any) -> None:
    """Another thread gets the same; a request from within a watch is refused."""
    with bench.load() as generator:
        scene, found = BY_NAME["a video"], {}
        expected = scene.ask(generator).latents

        def other() -> None:
            try:
                found["latents"] = scene.ask(generator).latents
                found["pictures"] = next(generator.frames(found["latents"]))
            except Exception as error:  # noqa: BLE001 - shown below
                found["error"] = error

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        same = "pictures" in found and distance(found["latents"], expected) < SAME
        bench.say("from another thread", same, error=str(found.get("error", "")))
        errors: List[Optional[BaseException]] = []

        def watch(view: Any) -> None:
            errors.append(_refusal(lambda: scene.ask(generator)))

        scene.ask(generator, watch)
        bench.say("no request from within a watch", all(isinstance(e, UsageError) for e in errors) and bool(errors))


def check_growth(bench: Any) -> None:
    """Requests of changing kinds and sizes, pictures that are left halfway: memory does not grow."""
    scenes = [BY_NAME[name] for name in ("an image", "a video", "policy", "a longer video", "inverse dynamics")]
    with bench.load() as generator:

        def round_trip() -> None:
            for scene in scenes:
                made = scene.ask(generator)
                pictures = generator.frames(made.latents)
                next(pictures)
                del pictures

        for _ in range(4):
            round_trip()

        def rounds() -> None:
            for _ in range(each):
                round_trip()

        each, start = max(bench.rounds // PASSES, 1), time.perf_counter()
        grown, held = growth(lambda: _memory(generator), rounds)
        passed = grown["device"] <= 0 and grown["held"] == 0 and grown["host"] <= HOST_GROWTH_BYTES
        facts = {"requests": each * len(scenes) * PASSES, "seconds": round(time.perf_counter() - start, 2)}
        passed = passed and grown["pinned"] == 0
        bench.say("many requests, no growth", passed, held_bytes=held, grown_bytes=grown, **facts)


def check_closing(bench: Any) -> None:
    """Loading and closing again and again gives everything back."""
    from motedge.runtime.cuda.choose import open_cuda

    cuda = open_cuda()
    with cuda.current():
        used = []
        for _ in range(8):
            with bench.load(sound=True) as generator:
                answer(generator, BY_NAME["sound"])
            free, total = cuda.memory_info()
            used.append(total - free)
    cuda.close()
    # The first ones leave what libraries load, and the driver's page (2 MiB) for it, once a process; a leak goes on
    bench.say("closing gives everything back", used[-1] <= used[3], used_bytes=used)
    after = _refusal(lambda: BY_NAME["sound"].ask(generator))
    bench.say("a closed one says so", isinstance(after, UsageError), **_told(after))


def check_failures(bench: Any) -> None:
    """NaN names its graph, bad requests are refused, and the next one is right."""
    scene = BY_NAME["a video"]
    with bench.load() as generator:
        expected = scene.ask(generator).latents
        latents = expected.copy()
        latents[0, 1] = np.nan
        error = _refusal(lambda: list(generator.frames(latents)))
        bench.say("NaN in latents that are decoded", isinstance(error, NonFiniteError), **_told(error))
        again = distance(scene.ask(generator).latents, expected)
        bench.say("and the next one is right", again < SAME, relative_l2=again)
    with _copy(bench) as bundle:
        path = bundle / Bundle.open(bundle).manifest.tables["embed_tokens"]["file"]
        # Every type reads all ones as NaN
        path.write_bytes(b"\xff" * path.stat().st_size)
        with bench.load(bundle) as generator:
            error = _refusal(lambda: scene.ask(generator))
            named = isinstance(error, NonFiniteError) and "und_prefill" in str(error)
            bench.say("NaN names the graph that it comes from", named, **_told(error))


def check_no_memory(bench: Any) -> None:
    """Another holds the memory: loading and asking fail clearly, leave nothing, and work once there is room."""
    scene, other = BY_NAME["a video"], BY_NAME["a longer video"]
    for _ in range(2):
        with bench.load() as generator:
            answer(generator, scene)
    with _own_cuda() as cuda:
        before = _used(cuda)
        with _hogged(cuda):
            error = _refusal(lambda: bench.load().close())
        left = _used(cuda) - before
        bench.say("no memory to load", isinstance(error, HostError) and left <= 0, left_bytes=left, **_told(error))
        with bench.load() as generator:
            made = scene.ask(generator)
            with _hogged(cuda):
                errors = [
                    _refusal(lambda: list(generator.frames(made.latents))),
                    _refusal(lambda: other.ask(generator)),
                ]
            refused = all(error is None or isinstance(error, HostError) for error in errors)
            bench.say("no memory for a request and for its pictures", refused, said=[str(e)[:300] for e in errors])
            found = answer(generator, other)
            expected = of_scene(bench.reference, other)
            error_after = distance(found["pictures"], expected["pictures"])
            bench.say("and what had failed works", error_after < tolerance(bench, "pictures"), relative_l2=error_after)


def check_times(bench: Any) -> None:
    """What requests take, on this tiny model: overhead, not speed."""
    found: Dict[str, Any] = {}
    with bench.load() as generator:
        for name in ("an image", "a video", "SeaCache", "policy"):
            scene = BY_NAME[name]
            times = [scene.ask(generator).timings for _ in range(12)][2:]
            found[name] = {
                "total_ms": round(median(t.total_ms for t in times), 3),
                "steps_ms": round(median(t.gen_ms for t in times), 3),
            }
    bench.say("times", True, medians=found)


def _memory(generator: Any) -> Dict[str, int]:
    graphs = graphs_of(generator)

    def look() -> Tuple[int, int]:
        with graphs.cuda.current():
            return graphs.cuda.memory_info()

    free, total = generator._turns.chunk(look)
    held = generator.memory_bytes()
    pinned = held.pop(PINNED, 0)
    return {"device": total - free, "host": resident_bytes(), "held": sum(held.values()), "pinned": pinned}


CHECKS: Tuple[Callable[[Any], None], ...] = (
    check_agreement,
    check_watching,
    check_captured,
    check_chunks,
    check_threads,
    check_growth,
    check_closing,
    check_failures,
    check_no_memory,
    check_times,
)
