"""The runtime's TensorRT engines on the real TensorRT and GPU of this machine: a line of JSON a check.

Python 3.9, numpy and cuda-bindings (or pycuda beside it) are enough; neither onnx nor pytest. For TensorRT 8.6, of
which device kits have whole libraries, and for any later one. From the repository's root:

    PYTHONPATH=.:tests/support python3 tests/support/trt_engine_on_gpu.py [pycuda] [cuda-bindings]

Each provider of CUDA runs in a process of its own: both hold the GPU's primary context, and TensorRT with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import refit_graph

from motedge.bundle import Contract, TensorSpec
from motedge.errors import BundleError, ContractError, MotedgeError
from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.backends.tensorrt.library import TENSORRT, Library, find_library
from motedge.runtime.cuda.errors import CudaError, EngineError, OutOfDeviceMemoryError
from motedge.runtime.cuda.interface import Cuda

# fp16 sums of 32 products against fp64: half a percent is far above, a wrong layer far below
TOLERANCE = 0.01
LOW, BEST, HIGH = refit_graph.ROWS
# Weights that do not fit into what the driver keeps of a GPU that is full: 64 MB in fp32
LARGE = 4096
RUNS = 300
# What driver and library may keep for good once something has run: their own caches, not a plan or a context a time
SLACK_BYTES = 64 << 20
Arrays = Dict[str, np.ndarray]


def contract(width: int = refit_graph.WIDTH, high: int = HIGH, graph: str = "small") -> Contract:
    """x -> y, [N, width] fp32 each."""

    def specs(name: str) -> Tuple[TensorSpec, ...]:
        return (TensorSpec(name, ("N", width), "fp32", "test"),)

    return Contract(graph, specs("x"), specs("y"), {}, {"N": (LOW, min(BEST, high), high)})


class Machine:
    """What the checks run on: a real TensorRT. The tests put a stub in its place."""

    def __init__(self, provider: Optional[str]) -> None:
        from motedge.runtime.cuda.choose import open_cuda

        self.cuda: Cuda = open_cuda(provider=provider)
        self.library: Library = find_library(TENSORRT)

    def build(self, out: Path) -> None:
        """The small graph, by our own builder."""
        from motedge.targets.builders.builder import BuildRequest
        from motedge.targets.builders.settings import BuildSettings
        from motedge.targets.builders.trt.build import build_plan

        request = BuildRequest(
            graph="small",
            variant="primitive17-fp16",
            model=refit_graph.path("old"),
            contract=contract(),
            dtype="fp16",
            asked={},
            capabilities=(),
            settings=BuildSettings(),
            out=out,
        )
        build_plan(self.library, request, lambda phase, share: None, inspect=False)

    def build_large(self, out: Path) -> None:
        """One product with LARGE x LARGE weights."""
        from motedge.runtime.backends.tensorrt.log import process_logger
        from motedge.targets.builders.trt.network import create_network

        api = self.library.api
        builder = api.Builder(process_logger(api))
        network = create_network(self.library, builder)
        x = network.add_input("x", api.DataType.FLOAT, (-1, LARGE))
        weights = np.eye(LARGE, dtype=np.float32)
        constant = network.add_constant((LARGE, LARGE), weights).get_output(0)
        y = network.add_matrix_multiply(x, api.MatrixOperation.NONE, constant, api.MatrixOperation.NONE).get_output(0)
        y.name = "y"
        network.mark_output(y)
        config = builder.create_builder_config()
        if self.library.row.test_only:
            config.set_tactic_sources(0)
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *[(rows, LARGE) for rows in refit_graph.ROWS])
        config.add_optimization_profile(profile)
        out.write_bytes(bytes(memoryview(builder.build_serialized_network(network, config))))

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Takes what is free of the GPU's memory, block by block."""
        blocks, size = [], self.cuda.memory_info()[0]
        try:
            while size >= 1 << 20:
                try:
                    blocks.append(self.cuda.allocate(size, "ballast"))
                except OutOfDeviceMemoryError:
                    size //= 2
            yield
        finally:
            for block in blocks:
                block.free()


class Bench:
    """A machine, a folder with the plans, and the findings so far."""

    def __init__(self, machine: Any, folder: Path) -> None:
        self.machine, self.cuda, self.folder = machine, machine.cuda, folder
        self.found: List[Dict[str, Any]] = []
        self.stream = self.cuda.stream()
        self.small, self.large = folder / "small.engine", folder / "large.engine"

    def say(self, check: str, passed: bool, **facts: Any) -> None:
        """Notes and prints a finding."""
        entry = {"check": check, "passed": bool(passed), "provider": self.cuda.provider, **facts}
        self.found.append(entry)
        say(entry)

    def load(self, path: Optional[Path] = None, of: Optional[Contract] = None, dtype: str = "fp16") -> TensorRtEngine:
        """An engine; the small one unless another is named."""
        return TensorRtEngine.load(path or self.small, of or contract(), dtype, self.cuda, library=self.machine.library)


class Side:
    """One context with its tensors and their copies in pinned memory."""

    def __init__(self, bench: Bench, engine: TensorRtEngine, rows: int) -> None:
        self.bench, self.rows = bench, rows
        self.context = engine.context({"N": rows})
        shape = (rows, engine.contract.inputs[0].dims[1])
        self.host = {name: bench.cuda.pinned(shape, np.float32) for name in ("x", "y")}
        self.blocks = {name: bench.cuda.allocate(array.nbytes, "tensors") for name, array in self.host.items()}
        for name, block in self.blocks.items():
            self.context.bind(name, block.pointer)

    def enqueue(self) -> None:
        """Copies x in, runs, copies y out."""
        cuda, stream, x, y = self.bench.cuda, self.bench.stream, self.host["x"], self.host["y"]
        cuda.copy(self.blocks["x"].pointer, x.ctypes.data, x.nbytes, stream)
        self.context.enqueue(stream)
        cuda.copy(y.ctypes.data, self.blocks["y"].pointer, y.nbytes, stream)

    def fill(self, seed: int) -> None:
        """Other inputs, and nothing left of the outputs."""
        self.host["x"][...] = np.random.RandomState(seed).uniform(-1, 1, self.host["x"].shape)
        self.host["y"][...] = np.nan

    def error(self) -> float:
        """Relative L2 of the small graph's outputs against numpy in fp64."""
        expected = refit_graph.reference(refit_graph.weights("old"), self.host["x"])
        return float(np.linalg.norm(self.host["y"] - expected) / np.linalg.norm(expected))

    def close(self) -> None:
        """Gives back what it holds."""
        self.context.close()
        for block in self.blocks.values():
            block.free()


def run_checks(bench: Bench) -> bool:
    """Everything, in order; True when each passed."""
    with bench.cuda.current():
        bench.machine.build(bench.small)
        bench.say("our builder writes a plan", bench.small.stat().st_size > 0, bytes=bench.small.stat().st_size)
        # What might crash an old library comes last
        for check in (_numbers, _shapes, _memory_full, _growth, _unbound, _plans):
            try:
                check(bench)
            # A check that breaks is a finding; the others are still worth their time on a GPU
            except (MotedgeError, ValueError, RuntimeError, AttributeError, TypeError) as error:
                bench.say(f"{check.__name__} runs through", False, raised=f"{type(error).__name__}: {error}")
    return all(entry["passed"] for entry in bench.found)


def _numbers(bench: Bench) -> None:
    """Two contexts take turns on one workspace, by stream and by replay."""
    engine, cuda = bench.load(), bench.cuda
    sides = [Side(bench, engine, rows) for rows in (BEST, HIGH)]
    size = max(side.context.activation_bytes for side in sides)
    workspace = cuda.allocate(max(size, 1), "workspace")
    for side in sides:
        side.context.use_activation_memory(workspace.pointer, workspace.nbytes)
    facts = {"workspace_bytes": size, "weight_bytes": engine.weight_bytes, "aux_streams": engine.auxiliary_streams}

    def enqueue() -> None:
        for side in sides:
            side.enqueue()

    bench.say("two contexts on one workspace compute", max(_run(bench, sides, enqueue, 0)) < TOLERANCE, **facts)
    refusals = [side.context.capture_refusal for side in sides]
    graph = cuda.capture(bench.stream, enqueue)
    errors = _run(bench, sides, lambda: graph.launch(bench.stream), 10)
    bench.say("so they do when captured", max(errors) < TOLERANCE, relative_l2=errors, refusals=refusals)
    first = [side.host["y"].copy() for side in sides]
    for _ in range(RUNS):
        graph.launch(bench.stream)
    bench.stream.synchronize()
    same = all(np.array_equal(a, side.host["y"]) for a, side in zip(first, sides))
    bench.say(f"{RUNS} replays give the same bytes", same)
    bench.say("the host's time", True, **_host_time(bench, sides[0], graph))
    other = cuda.allocate(sides[0].host["x"].nbytes, "tensors")
    sides[0].blocks["x"].free()
    sides[0].blocks["x"] = other
    graph.close()
    sides[0].context.bind("x", other.pointer)
    errors = _run(bench, sides, enqueue, 20)
    bench.say("another address takes effect", max(errors) < TOLERANCE, relative_l2=errors)
    for side in sides:
        side.close()
    workspace.free()
    engine.close()
    _nothing_held(bench, "after runs")


def _run(bench: Bench, sides: List[Side], enqueue: Callable[[], None], seed: int) -> List[float]:
    for number, side in enumerate(sides):
        side.fill(seed + number)
    enqueue()
    bench.stream.synchronize()
    # NaN is the worst
    return [value if value == value else float("inf") for value in (side.error() for side in sides)]


def _host_time(bench: Bench, side: Side, graph: Any) -> Dict[str, float]:
    """Microseconds of the calling thread, mean of RUNS calls: an engine's enqueue, and a graph of two with copies."""
    taken = {}
    calls = {
        "enqueue_us": lambda: side.context.enqueue(bench.stream),
        "graph_launch_us": lambda: graph.launch(bench.stream),
    }
    for name, call in calls.items():
        bench.stream.synchronize()
        start = time.perf_counter()
        for _ in range(RUNS):
            call()
        taken[name] = round((time.perf_counter() - start) / RUNS * 1e6, 2)
    bench.stream.synchronize()
    return taken


def _plans(bench: Bench) -> None:
    """Files that are no plan of this graph."""
    whole = bench.small.read_bytes()
    wrong = bench.folder / "wrong.engine"
    cases = {
        "a truncated plan": whole[: len(whole) // 2],
        "a plan without its last byte": whole[:-1],
        "a plan of another magic": b"\0\0\0\0" + whole[4:],
        "garbage": bytes(range(256)) * 64,
        "an empty file": b"",
    }
    for what, content in cases.items():
        wrong.write_bytes(content)
        error = _refused(lambda: bench.load(wrong))
        passed = isinstance(error, (EngineError, BundleError)) and "wrong.engine" in str(error)
        bench.say(f"{what} is refused", passed, said=str(error))
    for what, of in (
        ("another width", contract(width=8)),
        ("a wider range", contract(high=HIGH + 1)),
        ("other names", Contract("small", contract().outputs, contract().inputs, {}, contract().profile)),
    ):
        error = _refused(functools.partial(bench.load, None, of))
        bench.say(f"{what} than the contract's is refused", isinstance(error, BundleError), said=str(error))
    _nothing_held(bench, "after plans that were refused")


def _shapes(bench: Bench) -> None:
    """A size outside the profile: refused by our check, and what the library says to it."""
    engine = bench.load()
    error = _refused(lambda: engine.context({"N": HIGH + 1}))
    bench.say("a profile that is exceeded is refused", isinstance(error, ContractError), said=str(error))
    side = Side(bench, engine, BEST)
    error = _refused(
        lambda: side.context._calls.require("take a shape", side.context._raw.set_input_shape, "x", (HIGH + 1, 16))
    )
    bench.say("the library refuses it too, and says why", isinstance(error, EngineError), said=str(error))
    side.close()
    engine.close()


def _unbound(bench: Bench) -> None:
    """A run without addresses or workspace."""
    engine = bench.load()
    context = engine.context({"N": BEST})
    error = _refused(lambda: context.enqueue(bench.stream))
    bench.say("a run without addresses is refused", isinstance(error, ContractError), said=str(error))
    # Past our own check: the library's refusal
    context._ready = True
    error = _refused(lambda: context.enqueue(bench.stream))
    bench.say("the library refuses it too", isinstance(error, EngineError), said=str(error))
    error = _refused(lambda: context.bind("x", 64))
    bench.say("an address that is not aligned is refused", isinstance(error, ContractError), said=str(error))
    engine.close()
    side_engine = bench.load()
    side = Side(bench, side_engine, BEST)
    if side.context.activation_bytes:
        error = _refused(lambda: side.context.enqueue(bench.stream))
        bench.say("a run without a workspace is refused", isinstance(error, ContractError), said=str(error))
    side.close()
    side_engine.close()
    bench.stream.synchronize()
    bench.say("the stream works afterwards", True)
    _nothing_held(bench, "after runs that were refused")


def _memory_full(bench: Bench) -> None:
    """No room for the weights: an error that says so, nothing left, and it works once there is room."""
    bench.machine.build_large(bench.large)
    of = contract(LARGE, graph="large")
    with bench.machine.full():
        error = _refused(lambda: bench.load(bench.large, of, "fp32"))
    bench.say("a full GPU is said", isinstance(error, OutOfDeviceMemoryError), said=str(error))
    del error
    _nothing_held(bench, "after a full GPU")
    engine = bench.load(bench.large, of, "fp32")
    side = Side(bench, engine, BEST)
    workspace = bench.cuda.allocate(max(side.context.activation_bytes, 1), "workspace")
    side.context.use_activation_memory(workspace.pointer, workspace.nbytes)
    side.fill(3)
    side.enqueue()
    bench.stream.synchronize()
    # Its weights are the identity; TF32 rounds to 10 bits
    error_max = float(np.abs(side.host["y"] - side.host["x"]).max())
    bench.say("with room it runs", error_max < 2e-3, largest_error=error_max)
    side.close()
    workspace.free()
    engine.close()


def _growth(bench: Bench) -> None:
    """Engines that come and go, good ones and bad ones, leave nothing."""
    wrong = bench.folder / "wrong.engine"
    whole = bench.small.read_bytes()
    wrong.write_bytes(whole[: len(whole) // 2])

    def once() -> None:
        engine = bench.load()
        engine.context({"N": BEST}).close()
        engine.close()
        _refused(lambda: bench.load(wrong))

    once()
    before = bench.cuda.memory_info()[0]
    for _ in range(20):
        once()
    grown = before - bench.cuda.memory_info()[0]
    bench.say("20 engines leave nothing", grown <= SLACK_BYTES, grown_bytes=grown)
    _nothing_held(bench, "at the end")


def _nothing_held(bench: Bench, when: str) -> None:
    held = {name: size for name, size in bench.cuda.ledger.items() if "pinned" not in name}
    bench.say(f"nothing is held {when}", not held, held=held)


def _refused(call: Callable[[], Any]) -> Optional[Exception]:
    """The error of ours that a call raises, without the frames that it came through; None where it passed."""
    try:
        call()
    except (MotedgeError, CudaError) as error:
        return error.with_traceback(None)
    return None


def say(entry: Dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs all checks with each provider that is named, or with all that are installed; 0 when each passed."""
    if len(sys.argv) == 3 and sys.argv[1] == "--alone":
        machine = Machine(sys.argv[2])
        library = machine.library
        say({"tensorrt": library.version, "row": library.row.name, "provider": machine.cuda.provider})
        with tempfile.TemporaryDirectory() as folder:
            passed = run_checks_of(machine, Path(folder))
        machine.cuda.close()
        return 0 if passed else 1
    from motedge.runtime.cuda.choose import pycuda_problem

    asked = sys.argv[1:] or ["cuda-bindings", *([] if pycuda_problem() else ["pycuda"])]
    # A child that crashes is a failure of its own, and the next provider still runs
    codes = [subprocess.call([sys.executable, __file__, "--alone", name], env=os.environ) for name in asked]
    for name, code in zip(asked, codes):
        say({"check": "all of them", "provider": name, "passed": code == 0, "exit_code": code})
    return 0 if not any(codes) else 1


def run_checks_of(machine: Any, folder: Path) -> bool:
    """See `run_checks`."""
    with machine.cuda.current():
        bench = Bench(machine, folder)
    return run_checks(bench)


if __name__ == "__main__":
    sys.exit(main())
