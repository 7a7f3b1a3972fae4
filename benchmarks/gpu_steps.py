"""One forward of the generator on the same inputs and weights: PyTorch eager, and onnxruntime in each graph mode.

Every way is held against the same module in fp32. A way of the same precision is slower or faster, but not further off
than PyTorch's own by more than a factor of two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from gpu_modules import load_module, torch_operators
from gpu_scene import INSTRUCTION, GpuScene, Report
from gpu_timing import StreamClock, relative_l2
from gpu_torch_tick import TorchTick
from torch import Tensor, nn

from motedge.runtime.backends.onnxruntime_cuda import CUDA_GRAPH_MODES, CudaSettings, OnnxRuntimeCudaEngine
from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.cuda.interface import ALIGNMENT_BYTES

# A way's error over PyTorch's at the same precision
WORST_RATIO = 2.0
OUTPUTS = ("vision_velocity", "action_velocity")


def run(scene: GpuScene, report: Report) -> None:
    """Times and errors of every way that this machine has."""
    cuda = open_cuda()
    with contextlib.closing(cuda), cuda.current(), torch_operators(), torch.no_grad():
        stream = cuda.stream()
        clock = StreamClock(scene.device, stream.handle)
        ways, results = torch_ways(scene, clock, report)
        inputs = results.pop("inputs")
        for mode in CUDA_GRAPH_MODES:
            name = f"onnxruntime {scene.variant} {mode}"
            build = partial(OrtStep, scene, cuda, stream, inputs, mode)
            if report.attempt(f"make {name}", partial(_make, ways, name, build)) is not None:
                report.attempt(f"first {name}", partial(_first, clock, ways[name], results, name))
        alive = {name: way for name, way in ways.items() if name in results}
        report.put("ways", clock.measure({n: w.enqueue for n, w in alive.items()}, scene.rounds))
        report.put("parity", parity(results, scene.variant))
        for way in ways.values():
            way.close()


class TorchStep:
    """A torch module on prepared inputs."""

    def __init__(self, module: Callable[..., Any], inputs: Mapping[str, Tensor]) -> None:
        self._module, self.inputs, self.outputs = module, inputs, ()

    def enqueue(self) -> None:
        """One forward."""
        self.outputs = self._module(**self.inputs)

    def close(self) -> None:
        """Drops module and results."""
        self._module, self.outputs = None, ()  # type: ignore[assignment]


class GraphedStep:
    """A torch module captured in a CUDA graph."""

    def __init__(self, module: Callable[..., Any], inputs: Mapping[str, Tensor], clock: StreamClock) -> None:
        for _ in range(3):
            clock.run(lambda: module(**inputs))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.outputs = module(**inputs)

    def enqueue(self) -> None:
        """One replay."""
        self._graph.replay()

    def close(self) -> None:
        """Frees the graph and its memory."""
        self._graph.reset()


class OrtStep:
    """The bundle's graph in onnxruntime through our engine, on torch's memory."""

    def __init__(self, scene: GpuScene, cuda: Cuda, stream: Any, inputs: Mapping[str, Tensor], mode: str) -> None:
        bundle, self._stream, self._cuda = scene.bundle, stream, cuda
        contract, dtype = bundle.contract("gen_step"), bundle.variant("gen_step", scene.variant).dtype
        self._engine = make_engine(scene, cuda, stream, mode)
        try:
            self._hold(contract, dtype, inputs, scene.device)
        except BaseException:
            self._engine.close()
            raise
        self._graph: Any = None
        self._mode = mode

    def _hold(self, contract: Any, dtype: str, inputs: Mapping[str, Tensor], device: str) -> None:
        graph_type = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
        dims = {"T": inputs["vision"].shape[1], "A": inputs["action"].shape[0]}
        dims.update(U=inputs["und_kv"].shape[3], N=inputs["cos"].shape[0])
        self._context = self._engine.context(dims)
        self._held: dict[str, Tensor] = {}
        for spec in (*contract.inputs, *contract.outputs):
            kind = graph_type if spec.dtype == "graph" else torch.float32
            self._held[spec.name] = aligned_empty(spec.shape({**contract.sizes, **dims}), kind, device)
            if spec.name in inputs:
                self._held[spec.name].copy_(inputs[spec.name])
            self._context.bind(spec.name, self._held[spec.name].data_ptr())

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Velocities of vision and action."""
        return tuple(self._held[name] for name in OUTPUTS)

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine says of itself."""
        engine = self._engine
        return {
            "weight_bytes": engine.weight_bytes,
            "fallback": engine.fallback_reason,
            "nodes_on_cpu": len(engine.placement.on_cpu or ()),
        }

    def enqueue(self) -> None:
        """One run, or one launch of the captured graph, which the second call makes: the first allocates."""
        if self._graph is not None:
            self._graph.launch(self._stream)
            return
        self._context.enqueue(self._stream)
        if self._mode == "outer" and self._engine.capture_refusal is None:
            self._stream.synchronize()
            self._graph = self._cuda.capture(self._stream, lambda: self._context.enqueue(self._stream))

    def close(self) -> None:
        """Frees graph, context and session."""
        if self._graph is not None:
            self._graph.close()
        self._context.close()
        self._engine.close()


def make_engine(scene: GpuScene, cuda: Cuda, stream: Any, mode: str) -> OnnxRuntimeCudaEngine:
    """gen_step of the scene's variant."""
    contract, entry = scene.bundle.contract("gen_step"), scene.bundle.variant("gen_step", scene.variant)
    settings = CudaSettings(cuda_graph=mode)
    return OnnxRuntimeCudaEngine(scene.model_path("gen_step"), contract, entry.dtype, cuda, settings, stream=stream)


def aligned_empty(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    """Uninitialised memory at an address that engines take; torch aligns its own on a GPU, not on a CPU."""
    count = torch.Size(shape).numel()
    spare = ALIGNMENT_BYTES // dtype.itemsize
    flat = torch.empty(count + spare, dtype=dtype, device=device)
    start = (-flat.data_ptr() % ALIGNMENT_BYTES) // dtype.itemsize
    return flat[start : start + count].view(shape)


def torch_ways(scene: GpuScene, clock: StreamClock, report: Report) -> tuple[dict[str, Any], dict[str, Any]]:
    """PyTorch's ways, and the results of each beside those in fp32; "inputs" of all ways among them."""
    und = load_module(scene.bundle, "und_prefill", scene.variant, "fp32", scene.device, scene.size)
    vae = nn.Identity()
    tick = TorchTick(scene.bundle, {"und_prefill": und, "gen_step": vae, "vae_encoder": vae}, scene.device)
    inputs = tick.step_inputs(INSTRUCTION)
    tick.close()
    report.put("und_len", int(inputs["und_kv"].shape[3]))
    ways: dict[str, Any] = {}
    results: dict[str, Any] = {"inputs": inputs}
    for dtype, kind in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        module = load_module(scene.bundle, "gen_step", scene.variant, dtype, scene.device, scene.size)
        step = TorchStep(module, {**inputs, "und_kv": inputs["und_kv"].to(kind)})
        _first(clock, step, results, f"torch eager {dtype}")
        if dtype == "fp32":
            step.close()
            continue
        ways[f"torch eager {dtype}"] = step
        if scene.device == "cuda" and dtype == "fp16":
            name = f"torch eager {dtype}, CUDA graph"
            build = partial(GraphedStep, module, step.inputs, clock)
            if report.attempt(f"make {name}", partial(_make, ways, name, build)) is not None:
                _first(clock, ways[name], results, name)
    return ways, results


def parity(results: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Relative L2 of every way against fp32, and whether none is further off than PyTorch by WORST_RATIO."""
    reference = results["torch eager fp32"]
    errors = {
        name: {part: relative_l2(value, right) for part, value, right in zip(OUTPUTS, found, reference)}
        for name, found in results.items()
        if name != "torch eager fp32"
    }
    limits = errors[f"torch eager {variant.rpartition('-')[2]}"]
    same = {
        name: all(found[part] <= WORST_RATIO * limits[part] for part in OUTPUTS)
        for name, found in errors.items()
        if name.startswith("onnxruntime")
    }
    return {"relative_l2_to_fp32": errors, "worst_ratio": WORST_RATIO, "same_maths": same}


def _make(ways: dict[str, Any], name: str, build: Callable[[], Any]) -> dict[str, Any]:
    ways[name] = build()
    facts: dict[str, Any] = getattr(ways[name], "facts", {})
    return facts


def _first(clock: StreamClock, way: Any, results: dict[str, Any], name: str) -> str:
    """Runs a way three times, so that what it captures is what is compared, and keeps a copy of its results."""
    for _ in range(3):
        clock.run(way.enqueue)
    results[name] = tuple(value.float().cpu() for value in way.outputs)
    return "ran"
