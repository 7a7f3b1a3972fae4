"""What ort_cuda_on_gpu.py checks of onnxruntime's CUDA provider; each yields its findings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ort_cuda_scene import Scene, Tensors, worst

from motedge.errors import MotedgeError
from motedge.runtime.backends import open_engine
from motedge.runtime.comparison import DEFAULT_GATES
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.engine import EngineOptions

GRAPHS = ("und_prefill", "gen_step", "vae_encoder", "solver_step")
GEN = "gen_step"
# Same kernels on the same numbers: nothing but the order of atomic sums may differ
SAME = 1e-3
# The driver gives memory back in blocks
SLACK_BYTES = 64 << 20
# Work that keeps a GPU of 3 to 5 TB/s busy for tens of milliseconds
BLOCKER_BYTES, BLOCKERS = 2 << 30, 60
Finding = dict[str, Any]


def check_facts(scene: Scene) -> Iterator[Finding]:
    """Every variant loads on the GPU alone; what it takes is told."""
    import onnxruntime

    facts = scene.cuda.facts
    versions = {"onnxruntime": onnxruntime.__version__, "cuda": list(facts.driver_cuda), "device": facts.name}
    yield {"check": "versions", "passed": True, **versions, "provider": scene.cuda.provider}
    for graph in _graphs(scene):
        for variant in scene.variants(graph):
            start = time.perf_counter()
            try:
                engine = scene.engine(graph, variant, "own")
            except MotedgeError as error:
                yield {"check": f"load {graph} {variant}", "passed": _is_open(variant), "said": str(error)}
                continue
            found = {
                "seconds": time.perf_counter() - start,
                "weight_bytes": engine.weight_bytes,
                "on_cpu": engine.placement.on_cpu,
                "fallback": engine.fallback_reason,
            }
            yield {"check": f"load {graph} {variant}", "passed": engine.fallback_reason is None, **found}
            engine.close()


def check_agrees(scene: Scene) -> Iterator[Finding]:
    """Every variant in every mode gives what the CPU gives, within its dtype's gate."""
    for graph in _graphs(scene):
        dims = scene.dims(graph)
        inputs = scene.inputs(graph, dims)
        expected = scene.on_cpu(graph, dims, inputs)
        for variant in scene.variants(graph):
            gate = DEFAULT_GATES[scene.bundle.variant(graph, variant).dtype]
            for mode in ("off", "own", "outer"):
                try:
                    engine = scene.engine(graph, variant, mode)
                    tensors = Tensors(scene, engine, dims)
                    # "own" launches, captures, replays
                    found = [worst(tensors.run(inputs), expected), *(worst(tensors.run(), expected) for _ in range(2))]
                    tensors.free()
                    engine.close()
                except MotedgeError as error:
                    said = {"passed": _is_open(variant), "said": str(error)}
                    yield {"check": f"agrees {graph} {variant} {mode}", **said}
                    continue
                yield {
                    "check": f"agrees {graph} {variant} {mode}",
                    "passed": all(c.passes(gate) for c in found),
                    "relative_l2": [c.relative_l2 for c in found],
                    "tensor": found[0].tensor,
                }


def check_own(scene: Scene) -> Iterator[Finding]:
    """The library's own graph: new contents, moved tensors, two sets of shapes, each as without a graph."""
    engine, plain = (scene.engine(GEN, scene.best(GEN), mode) for mode in ("own", "off"))
    yield {"check": "own: says why it is not captured", "passed": bool(engine.capture_refusal)}
    for shorter in (False, True):
        dims = scene.dims(GEN, shorter)
        tensors, reference = Tensors(scene, engine, dims), Tensors(scene, plain, dims)
        errors = []
        for seed in range(5):
            inputs = scene.inputs(GEN, dims, seed)
            errors.append(worst(tensors.run(inputs), reference.run(inputs)).relative_l2)
        yield _same(f"own: contents change, shorter={shorter}", errors)
        old, inputs = tensors.move("und_kv"), scene.inputs(GEN, dims, 9)
        moved = worst(tensors.run(inputs), reference.run(inputs)).relative_l2
        tensors.context.bind("und_kv", old)
        before = scene.inputs(GEN, dims, 4)
        back = worst(tensors.run({k: v for k, v in inputs.items() if k != "und_kv"}), _with(reference, inputs, before))
        yield _same(f"own: a tensor moves and comes back, shorter={shorter}", [moved, back.relative_l2])
        yield {"check": f"own: time, shorter={shorter}", "passed": True, **_timed(scene, tensors)}
    engine.close()
    plain.close()


def check_off(scene: Scene) -> Iterator[Finding]:
    """Time without graphs, for comparison."""
    engine = scene.engine(GEN, scene.best(GEN), "off")
    tensors = Tensors(scene, engine, scene.dims(GEN))
    tensors.run(scene.inputs(GEN, scene.dims(GEN)))
    yield {"check": "off: time", "passed": True, **_timed(scene, tensors)}


def check_outer(scene: Scene) -> Iterator[Finding]:
    """Two contexts in one graph of ours, replayed on new contents, as the loop does with guidance."""
    engine, plain = (scene.engine(GEN, scene.best(GEN), mode) for mode in ("outer", "off"))
    yield {"check": "outer: can be captured", "passed": engine.capture_refusal is None, "why": engine.capture_refusal}
    sizes = [scene.dims(GEN), scene.dims(GEN, True)]
    pairs = [(Tensors(scene, engine, dims), Tensors(scene, plain, dims), dims) for dims in sizes]
    for tensors, _, dims in pairs:
        tensors.run(scene.inputs(GEN, dims))

    def enqueue() -> None:
        for tensors, _, _ in pairs:
            tensors.context.enqueue(engine.stream)

    graph = scene.cuda.capture(engine.stream, enqueue)
    yield {"check": "outer: captured", "passed": True}
    errors = []
    for seed in range(20):
        for tensors, _, dims in pairs:
            tensors.fill(scene.inputs(GEN, dims, seed))
            tensors.wipe()
        graph.launch(engine.stream)
        for tensors, reference, dims in pairs:
            errors.append(worst(tensors.read(), reference.run(scene.inputs(GEN, dims, seed))).relative_l2)
    yield _same("outer: replays on new contents", errors)
    # Other runs of the session between two replays must not disturb it, nor it them
    other = Tensors(scene, engine, {**sizes[0], **{k: v for k, v in scene.dims(GEN, True).items() if k == "U"}})
    inputs = scene.inputs(GEN, sizes[1], 33)
    alone = other.run(inputs)
    tensors, _, dims = pairs[0]
    tensors.fill(scene.inputs(GEN, dims, 3))
    graph.launch(engine.stream)
    between = [worst(other.run(inputs), alone).relative_l2]
    between.append(worst(tensors.read(), pairs[0][1].run(scene.inputs(GEN, dims, 3))).relative_l2)
    yield _same("outer: replays and runs take turns", between)
    yield {"check": "outer: time of two", "passed": True, **_timed(scene, tensors, lambda: graph.launch(engine.stream))}
    graph.close()
    engine.close()
    plain.close()


def check_asynchronous(scene: Scene) -> Iterator[Finding]:
    """`enqueue` returns while earlier work is still running, and what follows on a stream waits for it."""
    blocker = scene.cuda.allocate(1 << 20 if scene.simulated else BLOCKER_BYTES, "test: blocker")
    for mode in ("off", "outer", "own"):
        engine = scene.engine(GEN, scene.best(GEN), mode)
        dims = scene.dims(GEN)
        tensors, inputs = Tensors(scene, engine, dims), scene.inputs(GEN, dims)
        expected, busy = tensors.run(inputs), scene.cuda.event()
        for where, stream in (("own stream", engine.stream), ("another stream", scene.cuda.stream())):
            tensors.wipe()
            engine.stream.synchronize()
            for _ in range(BLOCKERS):
                scene.cuda.zero(blocker.pointer, blocker.nbytes, stream)
            busy.record(stream)
            start = time.perf_counter()
            tensors.context.enqueue(stream)
            host_ms = 1e3 * (time.perf_counter() - start)
            # A simulated GPU has done its work by then
            waited = busy.passed and not scene.simulated
            stream.synchronize()
            after = worst(tensors.read(), expected).relative_l2
            facts = {"host_ms": host_ms, "relative_l2": after}
            # Capturing by itself, the library may wait: told, and for the caller to know
            passed = (not waited or mode == "own") and after is not None and after < SAME
            yield {"check": f"asynchronous: {mode}, {where}", "passed": passed, "waited": waited, **facts}
        tensors.free()
        engine.close()
    blocker.free()


def check_memory(scene: Scene) -> Iterator[Finding]:
    """Limits too small are errors in our words; everything comes back; 1,000 runs take nothing."""
    variant = scene.best(GEN)
    free, _ = scene.cuda.memory_info()
    yield from _too_small(scene, variant)
    for name in ("first", "second"):
        engine = scene.engine(GEN, variant, "own")
        tensors, inputs = Tensors(scene, engine, scene.dims(GEN)), scene.inputs(GEN, scene.dims(GEN))
        tensors.run(inputs)
        held, _ = scene.cuda.memory_info()
        for turn in range(1000):
            if turn % 250 == 0:
                tensors.move("vision")
                tensors.fill(inputs)
            tensors.context.enqueue(engine.stream)
        engine.stream.synchronize()
        grown = held - scene.cuda.memory_info()[0]
        yield {"check": f"1,000 runs, {name} engine", "passed": grown < SLACK_BYTES, "grown_bytes": grown}
        tensors.free()
        engine.close()
        lost = free - scene.cuda.memory_info()[0]
        # What CUDA's libraries load when first used stays, and is no loss
        yield {"check": f"closed, {name} engine", "passed": name == "first" or lost < SLACK_BYTES, "lost_bytes": lost}
        free = scene.cuda.memory_info()[0]
    yield {"check": "ledger", "passed": not [k for k in scene.cuda.ledger if k.startswith("test")]}


def _too_small(scene: Scene, variant: str) -> Iterator[Finding]:
    if scene.simulated:
        return
    for limit, when in ((1 << 16, "loading"), (None, "the first run")):
        said = None
        try:
            if limit is None:
                weights = sum(
                    scene.bundle.path(name).stat().st_size for name in scene.bundle.variant(GEN, variant).weights
                )
                limit = int(weights * 1.02) + (1 << 16)
            with contextlib.ExitStack() as made:
                engine = scene.engine(GEN, variant, "off", memory_limit_bytes=limit)
                made.callback(engine.close)
                tensors = Tensors(scene, engine, scene.dims(GEN))
                made.callback(tensors.free)
                tensors.run(scene.inputs(GEN, scene.dims(GEN)))
        except OutOfDeviceMemoryError as error:
            said = str(error)
        yield {"check": f"too little memory in {when}", "passed": said is not None, "limit": limit, "said": said}


def check_host(scene: Scene) -> Iterator[Finding]:
    """numpy in, numpy out: as `motedge verify` runs it."""
    if scene.simulated:
        return
    for graph in _graphs(scene):
        variant, dims = scene.best(graph), scene.dims(graph)
        inputs = scene.inputs(graph, dims)
        expected = scene.on_cpu(graph, dims, inputs)
        options = EngineOptions(check_content=False)
        engine = open_engine(scene.bundle, graph, backend="onnxruntime-cuda", variant=variant, options=options)
        context = engine.context(dims)
        for spec in engine.contract.inputs:
            half = spec.dtype == "graph" and engine.dtype == "fp16"
            context.set_input(spec.name, inputs[spec.name].astype(np.float16 if half else np.float32))
        context.run()
        found = worst({name: context.output(name).astype(np.float32) for name in expected}, expected)
        passed = found.passes(DEFAULT_GATES[engine.dtype])
        yield {"check": f"numpy: {graph} {variant}", "passed": passed, "relative_l2": found.relative_l2}
        engine.close()


def check_missing_library(scene: Scene) -> Iterator[Finding]:
    """Without the libraries of CUDA, to which this process has no path: an error names one, and the CPU is not used."""
    import onnxruntime

    if scene.simulated:
        return
    onnxruntime.preload_dlls = lambda *_, **__: None
    said = None
    try:
        engine = scene.engine(GEN, scene.best(GEN), "off")
    except MotedgeError as error:
        said = str(error)
    else:
        # The system's own loader knows where they are: then nothing is missing
        on_gpu = "CUDAExecutionProvider" in engine.session.get_providers()
        yield {"check": "a missing library is named", "passed": on_gpu, "said": "not missing on this machine"}
        return
    yield {"check": "a missing library is named", "passed": ".so" in said, "said": said}


CHECKS: dict[str, Callable[[Scene], Iterator[Finding]]] = {
    "facts": check_facts,
    "agrees": check_agrees,
    "off": check_off,
    "own": check_own,
    "outer": check_outer,
    "asynchronous": check_asynchronous,
    "memory": check_memory,
    "host": check_host,
    "missing_library": check_missing_library,
}


def _is_open(variant: str) -> bool:
    """Whether it was not known, when this was written, that the provider has every kernel in this dtype."""
    return "bf16" in variant


def _graphs(scene: Scene) -> list[str]:
    return [graph for graph in GRAPHS if graph in scene.bundle.manifest.graphs]


def _same(check: str, errors: list[Any]) -> Finding:
    largest = max(float("inf") if error is None else float(error) for error in errors)
    return {"check": check, "passed": largest < SAME, "relative_l2": largest, "runs": len(errors)}


def _with(reference: Tensors, inputs: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The reference on `inputs`, but with the K and V that lay at the old address."""
    return reference.run({**inputs, "und_kv": before["und_kv"]})


def _timed(scene: Scene, tensors: Tensors, launch: Any = None, runs: int = 50) -> Finding:
    """Medians: the GPU's time from event to event, and the host's in `enqueue`, over single runs on an idle stream."""
    launch = launch or (lambda: tensors.context.enqueue(tensors.stream))
    device, host = [], []
    for _ in range(runs):
        start, end = scene.cuda.event(), scene.cuda.event()
        start.record(tensors.stream)
        begun = time.perf_counter()
        launch()
        host.append(1e3 * (time.perf_counter() - begun))
        end.record(tensors.stream)
        tensors.stream.synchronize()
        device.append(end.elapsed_ms(start))
    return {"device_ms": float(np.median(device)), "host_ms": float(np.median(host)), "runs": runs}
