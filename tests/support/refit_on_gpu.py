"""Refits an engine with the real TensorRT of this machine, and says what came out: one line of JSON a check.

Python 3.9, numpy and cuda-bindings are enough; neither onnx nor pytest. TensorRT 8.6 (for which it is: device kits have
whole libraries of it) has no OnnxParserRefitter, so that weights are set by name, as the parser of later versions
does it. Where there is one, refit_plan itself is run, and its plan too. From the repository's root:

    PYTHONPATH=.:tests/support python3 tests/support/refit_on_gpu.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import refit_graph

from motedge.errors import MotedgeError
from motedge.runtime.backends.tensorrt.log import make_logger
from motedge.runtime.backends.tensorrt.versions import find_version
from motedge.targets.builders.trt.library import TENSORRT, Library
from motedge.targets.builders.trt.network import create_network
from motedge.targets.refit.engine import refit_plan

# fp16 sums of 32 products against fp64: half a percent is far above, another weight far below
TOLERANCE = 0.01
REFIT = "REFIT"


class Bench:
    """The library, a stream, and the findings so far."""

    def __init__(self) -> None:
        import tensorrt
        from cuda.bindings import driver

        self.cuda = driver
        self._ok(driver.cuInit(0))
        self._ok(driver.cuCtxSetCurrent(self._ok(driver.cuDevicePrimaryCtxRetain(self._ok(driver.cuDeviceGet(0))))))
        self.stream = self._ok(driver.cuStreamCreate(0))
        self.api: Any = tensorrt
        self.library = Library(TENSORRT, tensorrt, tensorrt.__version__, find_version(tensorrt.__version__))
        self.logger = make_logger(tensorrt)
        self.found: List[Dict[str, Any]] = []

    def say(self, check: str, passed: bool, **facts: Any) -> None:
        """Notes and prints a finding."""
        entry = {"check": check, "passed": bool(passed), **facts}
        self.found.append(entry)
        _print(entry)

    def build(self, *flags: str) -> bytes:
        """A plan of the old graph."""
        builder = self.api.Builder(self.logger)
        network = create_network(self.library, builder)
        parser = self.api.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(refit_graph.path("old"))):
            raise RuntimeError(parser.get_error(0).desc())
        config = builder.create_builder_config()
        for flag in flags:
            config.set_flag(getattr(self.api.BuilderFlag, flag))
        if self.library.row.test_only:
            config.set_flag(self.api.BuilderFlag.FP16)
            # The kit has no cuBLAS and no cuDNN
            config.set_tactic_sources(0)
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *[(rows, refit_graph.WIDTH) for rows in refit_graph.ROWS])
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RuntimeError("; ".join(self.logger.errors))
        return bytes(memoryview(plan))

    def load(self, plan: bytes) -> Any:
        """The engine of a plan."""
        return self.api.Runtime(self.logger).deserialize_cuda_engine(plan)

    def run(self, engine: Any, x: np.ndarray) -> np.ndarray:
        """The engine's answer, [rows, WIDTH] fp32."""
        context, y = engine.create_execution_context(), np.empty(x.shape, np.float32)
        context.set_input_shape("x", x.shape)
        memory = [self._ok(self.cuda.cuMemAlloc(value.nbytes)) for value in (x, y)]
        self._ok(self.cuda.cuMemcpyHtoD(memory[0], x.ctypes.data, x.nbytes))
        for name, address in zip(("x", "y"), memory):
            context.set_tensor_address(name, int(address))
        if not context.execute_async_v3(int(self.stream)):
            raise RuntimeError("; ".join(self.logger.errors))
        self._ok(self.cuda.cuStreamSynchronize(self.stream))
        self._ok(self.cuda.cuMemcpyDtoH(y.ctypes.data, memory[1], y.nbytes))
        for address in memory:
            self._ok(self.cuda.cuMemFree(address))
        return y

    def error(self, engine: Any, weights: str) -> float:
        """Largest relative L2 error over all numbers of rows, against numpy with one of the two sets."""
        errors = []
        for rows in refit_graph.ROWS:
            x = refit_graph.inputs(rows)
            expected = refit_graph.reference(refit_graph.weights(weights), x)
            got = self.run(engine, x).astype(np.float64)
            errors.append(float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
        # NaN is the worst
        return max(errors, key=lambda value: (value != value, value))

    def _ok(self, result: Any) -> Any:
        if result[0] != self.cuda.CUresult.CUDA_SUCCESS:
            raise RuntimeError(str(result[0]))
        return result[1] if len(result) > 1 else None


def main() -> int:
    """Runs all checks; 0 when each passed."""
    bench = Bench()
    _print({"tensorrt": bench.library.version, "row": bench.library.row.name})
    plain, plan = bench.build(), bench.build(REFIT)
    _check_built(bench, plain, plan)
    _check_by_name(bench, plan)
    _check_refusals(bench, plain, plan)
    if hasattr(bench.api, "OnnxParserRefitter"):
        _check_refit_plan(bench, plan)
    return 0 if all(entry["passed"] for entry in bench.found) else 1


def _check_built(bench: Bench, plain: bytes, plan: bytes) -> None:
    """What was built computes the old weights; being refittable changes nothing (11.3 drops a bias)."""
    for name, data in (("plain", plain), ("refittable", plan)):
        error = bench.error(bench.load(data), "old")
        bench.say(f"{name} engine is right", error < TOLERANCE, relative_l2=error, bytes=len(data))
    bench.say("refittable says so", bench.load(plan).refittable and not bench.load(plain).refittable)


def _check_by_name(bench: Bench, plan: bytes) -> None:
    """Weights go by the names of ONNX initializers; all together, and some alone."""
    engine, new = bench.load(plan), refit_graph.weights("new")
    refitter = bench.api.Refitter(engine, bench.logger)
    names = set(refitter.get_all_weights())
    lacking, others = sorted(set(new) - names), sorted(names - set(new))
    bench.say("every weight goes by its name", not lacking, lacking=lacking, others=others)
    taken = {name: bool(refitter.set_named_weights(name, np.ascontiguousarray(new[name]))) for name in new}
    bench.say("every weight is taken", all(taken.values()), refused=[name for name, ok in taken.items() if not ok])
    missing = sorted(refitter.get_missing_weights())
    bench.say("no other is missing", not missing, missing=missing)
    done = bool(refitter.refit_cuda_engine())
    error = bench.error(engine, "new")
    bench.say("refitted engine is right", done and error < TOLERANCE, relative_l2=error)
    again = bench.load(bytes(memoryview(engine.serialize())))
    error = bench.error(again, "new")
    bench.say("so it is when written and read", error < TOLERANCE, relative_l2=error, refittable=bool(again.refittable))


def _check_refusals(bench: Bench, plain: bytes, plan: bytes) -> None:
    """What does not fit is refused by the library, and in our words."""
    refitter = bench.api.Refitter(bench.load(plan), bench.logger)
    short = np.zeros(3, np.float16)
    # 8.6 takes three numbers for sixteen without a word
    if not bench.library.row.test_only:
        bench.say("another size is refused", not refitter.set_named_weights("proj_in.bias", short))
    bench.say("another name is refused", not refitter.set_named_weights("proj_in.bais", short))
    with tempfile.TemporaryDirectory() as folder:
        old, out = Path(folder) / "old.engine", Path(folder) / "new.engine"
        for what, data, words in (
            ("a plain engine", plain, "is not refittable"),
            ("a damaged engine", plan[: len(plan) // 2], "can't load"),
        ):
            old.write_bytes(data)
            said = _refit(bench, old, out)
            bench.say(f"{what} is refused", said is not None and words in said and not out.exists(), said=said)


def _check_refit_plan(bench: Bench, plan: bytes) -> None:
    """refit_plan, from file to file: the old plan, the new ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        old, out = Path(folder) / "old.engine", Path(folder) / "new.engine"
        old.write_bytes(plan)
        said = _refit(bench, old, out)
        bench.say("refit_plan writes a plan", said is None, said=said)
        if said is None:
            engine = bench.load(out.read_bytes())
            error = bench.error(engine, "new")
            facts = {"relative_l2": error, "refittable": bool(engine.refittable)}
            bench.say("which computes the new weights", error < TOLERANCE, **facts)


def _refit(bench: Bench, old: Path, out: Path) -> Optional[str]:
    """What refit_plan says against it; None where it wrote."""
    try:
        refit_plan(bench.library, old, refit_graph.path("new"), out)
    except MotedgeError as error:
        return str(error)
    return None


def _print(entry: Dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
