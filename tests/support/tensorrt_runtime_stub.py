"""TensorRT on the simulated GPU: the recorded API of six releases, behind which onnxruntime computes on the CPU.

    cuda = HostCuda()
    library = stub_library("10.3", cuda)                 # "8.6", "10.3", "10.13", "10.16", "11.4", "rtx"
    path.write_bytes(make_plan(model, contract))         # a "plan": names an ONNX file, and holds profiles
    engine = TensorRtEngine.load(path, contract, "fp32", cuda, library=library)

Using what a release lacks is an AttributeError, as with the real module. What a real one would refuse is refused in
its way (False or None and a line in the log; RuntimeError where the bindings raise). Every run poisons the workspace,
so that nothing can be kept there between runs. By `stage_of(library)` tests make members fail and see what was done.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import onnx
import onnxruntime
from host_cuda import HostCuda
from tensorrt_stub import make_module, read_api

from motedge.bundle import Contract
from motedge.runtime.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, Library, describe_library

RUNTIME_VERSIONS = ("8.6", "10.3", "10.13", "10.16", "11.4", "rtx")
_RECORDED = {"rtx": "rtx-1.7"}
_SCHEMA = "a plan of the stub"
_TYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.INT64: "INT64"}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64}
_ANY = (1, 8, 1 << 20)
Shape = tuple[int, ...]
Profile = Mapping[str, Sequence[Sequence[int]]]


@dataclass
class RuntimeStage:
    """How the library is to behave, and what was seen."""

    # Member -> what it logs when it fails: "execute_async_v3": "Cuda Runtime (out of memory)"
    fail: dict[str, str] = field(default_factory=dict)
    aux_streams: int = 0
    # Bytes of streamable weights; 0: not built for streaming
    streamable: int = 0
    capturable: bool = True
    accepts_cache: bool = True
    # Kernels of TensorRT-RTX that had to be compiled, by shapes
    compiled: list[str] = field(default_factory=list)
    runs: int = 0
    # RTX: settings of each context's IRuntimeConfig
    configs: list[tuple[str, str, str]] = field(default_factory=list)
    engines: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    contexts: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


def make_plan(
    model: Path, contract: Optional[Contract] = None, profiles: Optional[Sequence[Profile]] = None, **extra: Any
) -> bytes:
    """A plan that runs an ONNX file.

    Args:
        model: the file; its external data beside it.
        contract: gives the one profile.
        profiles: of each: input -> (smallest, best, largest) shape; instead of the contract's.
        extra: "format" and so on: what the engine says that the graph does not.
    """
    if profiles is None and contract is not None:
        sizes = [{**contract.sizes, **{k: span[i] for k, span in contract.profile.items()}} for i in range(3)]
        profiles = [{spec.name: [spec.shape(size) for size in sizes] for spec in contract.inputs}]
    plan = {"schema": _SCHEMA, "model": str(Path(model).resolve()), "profiles": profiles, **extra}
    return json.dumps(plan).encode()


def stub_library(version: str, cuda: HostCuda) -> Library:
    """The library of a release, one of RUNTIME_VERSIONS, that runs on this simulated GPU."""
    scene = RuntimeScene(cuda, version)
    return describe_library(TENSORRT_RTX if version == "rtx" else TENSORRT, scene.module)


def stage_of(library: Library) -> RuntimeStage:
    """The stage that a stub library plays on."""
    stage: RuntimeStage = library.api.stub_stage
    return stage


class PlanGraph:
    """What a plan names: tensors with their symbolic shapes, and a session that computes."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        model = onnx.load(plan["model"], load_external_data=False)
        constants = {value.name for value in model.graph.initializer}
        self.inputs = {v.name: _dims(v) for v in model.graph.input if v.name not in constants}
        self.outputs = {v.name: _dims(v) for v in model.graph.output}
        values = (*model.graph.input, *model.graph.output)
        self.types = {v.name: _TYPES[v.type.tensor_type.elem_type] for v in values if v.name not in constants}
        self.names = [*self.inputs, *self.outputs]
        open_profile = {
            name: [[d if isinstance(d, int) else s for d in dims] for s in _ANY] for name, dims in self.inputs.items()
        }
        self.profiles: list[Profile] = plan["profiles"] or [open_profile]
        self.says, self._known = plan, dict[Any, dict[str, Shape]]()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self.session = onnxruntime.InferenceSession(plan["model"], options, providers=["CPUExecutionProvider"])

    def static_shape(self, name: str) -> Shape:
        return tuple(d if isinstance(d, int) else -1 for d in {**self.inputs, **self.outputs}[name])

    def shape(self, name: str, given: Mapping[str, Shape]) -> Shape:
        """With what the inputs' shapes say of the letters; -1 for what is not known."""
        letters = {
            letter: size
            for tensor, shape in given.items()
            for letter, size in zip(self.inputs[tensor], shape)
            if isinstance(letter, str)
        }
        dims = {**self.inputs, **self.outputs}[name]
        shapes = {tensor: given.get(tensor, self.static_shape(tensor)) for tensor in self.inputs}
        known = all(isinstance(d, int) or d in letters for d in dims)
        if name in self.outputs and not known and not any(-1 in shape for shape in shapes.values()):
            return self._computed(shapes)[name]
        return tuple(d if isinstance(d, int) else letters.get(d, -1) for d in dims)

    def _computed(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """What a library works out from the graph where a size follows from others: here, from a run on zeros."""
        key = tuple(sorted(inputs.items()))
        if key not in self._known:
            zeros = {tensor: np.zeros(shape, _NUMPY[self.types[tensor]]) for tensor, shape in inputs.items()}
            results = self.session.run(list(self.outputs), zeros)
            self._known[key] = {output: tuple(value.shape) for output, value in zip(self.outputs, results)}
        return self._known[key]

    def workspace(self, shapes: Mapping[str, Shape]) -> int:
        """Bytes that this stub asks for: sixteen times the outputs, and something fixed."""
        return 4096 + 256 * -(-sum(64 * math.prod(shapes[name]) for name in self.outputs) // 256)

    def largest(self, index: int) -> dict[str, Shape]:
        """All shapes at the largest of a profile."""
        given = {name: tuple(self.profiles[index][name][2]) for name in self.inputs}
        return {name: self.shape(name, given) for name in self.names}


def _dims(value: Any) -> tuple[Any, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}.{i}" for i, d in enumerate(dims)
    )


class RuntimeScene:
    """What members do, by class. `own` is the stub's object."""

    def __init__(self, cuda: HostCuda, version: str) -> None:
        self.cuda, self.stage = cuda, RuntimeStage()
        recorded = _RECORDED.get(version, version)
        self.classes = read_api(recorded)["classes"]
        behaviour = {**self.runtime(), **self.engine(), **self.memory(), **self.context(), **self.just_in_time()}
        self.module: Any = make_module(recorded, behaviour)
        self.module.stub_stage = self.stage

    def failed(self, own: Any, member: str) -> bool:
        """Whether a test wants this member to fail; logs its reason."""
        if member not in self.stage.fail:
            return False
        self.refuse(own, self.stage.fail[member])
        return True

    def refuse(self, own: Any, text: str) -> None:
        own.stub_log.log(self.module.ILogger.Severity.ERROR, text)

    def runtime(self) -> dict[tuple[str, str], Any]:
        def start(own: Any, logger: Any) -> None:
            own.stub_log = logger

        def load(own: Any, plan: Any) -> Any:
            if self.failed(own, "deserialize_cuda_engine"):
                return None
            try:
                content = json.loads(bytes(plan))
                fits = content["schema"] == _SCHEMA
            except (ValueError, KeyError, TypeError):
                fits = False
            if not fits:
                self.refuse(
                    own, "[runtime.cpp::parsePlan] Serialization assertion magicTag failed. Magic tag does not match"
                )
                return None
            made = self.module.ICudaEngine()
            made.stub_log, made.stub_graph = own.stub_log, PlanGraph(content)
            self.stage.engines.add(made)
            return made

        return {("Runtime", "__init__"): start, ("Runtime", "deserialize_cuda_engine"): load}

    def engine(self) -> dict[tuple[str, str], Any]:
        api, stage = self, self.stage

        def mode(own: Any, name: str) -> Any:
            return getattr(api.module.TensorIOMode, "INPUT" if name in own.stub_graph.inputs else "OUTPUT")

        def dtype(own: Any, name: str) -> Any:
            kind = own.stub_graph.says.get("types", {}).get(name, own.stub_graph.types[name])
            known = api.module.DataType
            # Before 10 the parser makes int64 tensors int32
            return getattr(known, kind if hasattr(known, kind) else "INT32")

        def place(own: Any, name: str) -> Any:
            return getattr(api.module.TensorLocation, own.stub_graph.says.get("place", "DEVICE"))

        def spans(own: Any, name: str, index: int) -> list[Shape]:
            return [tuple(shape) for shape in own.stub_graph.profiles[index][name]]

        return {
            ("ICudaEngine", "num_io_tensors"): lambda own: len(own.stub_graph.names),
            ("ICudaEngine", "num_optimization_profiles"): lambda own: len(own.stub_graph.profiles),
            ("ICudaEngine", "num_aux_streams"): lambda own: stage.aux_streams,
            ("ICudaEngine", "streamable_weights_size"): lambda own: stage.streamable,
            ("ICudaEngine", "weight_streaming_budget_v2"): lambda own: stage.streamable,
            ("ICudaEngine", "get_engine_stat"): lambda own, stat: 12_345,
            ("ICudaEngine", "get_tensor_name"): lambda own, index: own.stub_graph.names[index],
            ("ICudaEngine", "get_tensor_mode"): mode,
            ("ICudaEngine", "get_tensor_dtype"): dtype,
            ("ICudaEngine", "get_tensor_shape"): lambda own, name: own.stub_graph.static_shape(name),
            ("ICudaEngine", "get_tensor_location"): place,
            ("ICudaEngine", "get_tensor_format"): lambda own, name: getattr(
                api.module.TensorFormat, own.stub_graph.says.get("format", "LINEAR")
            ),
            ("ICudaEngine", "is_shape_inference_io"): lambda own, name: False,
            ("ICudaEngine", "get_tensor_profile_shape"): spans,
        }

    def memory(self) -> dict[tuple[str, str], Any]:
        """Who brings the activation memory, and how much."""

        def create(own: Any, how: Any = None) -> Any:
            if self.failed(own, "create_execution_context"):
                return None
            if isinstance(how, getattr(self.module, "IRuntimeConfig", ())):
                how = how.stub_strategy
            made = self.module.IExecutionContext()
            made.stub_log, made.stub_graph, made.stub_engine = own.stub_log, own.stub_graph, own
            made.stub_given, made.stub_bound, made.stub_profile = {}, {}, 0
            made.stub_own_memory = getattr(how, "name", "STATIC") != "USER_MANAGED"
            self.stage.contexts.add(made)
            return made

        def without_memory(own: Any) -> Any:
            made = create(own)
            if made is not None:
                made.stub_own_memory = False
            return made

        def of_profile(own: Any, index: int) -> int:
            return int(own.stub_graph.workspace(own.stub_graph.largest(index)))

        def of_all(own: Any) -> int:
            return max(of_profile(own, index) for index in range(len(own.stub_graph.profiles)))

        def for_shapes(own: Any) -> int:
            if self.failed(own, "update_device_memory_size_for_shapes"):
                return 0
            return int(own.stub_graph.workspace(self.shapes(own)))

        def take(own: Any, address: int, size: int) -> None:
            if size < own.stub_graph.workspace(self.shapes(own)):
                self.refuse(own, "IExecutionContext::setDeviceMemoryV2: API Usage Error (the memory is too small)")
            else:
                own.stub_workspace = (address, size)

        return {
            ("ICudaEngine", "create_execution_context"): create,
            ("ICudaEngine", "create_execution_context_without_device_memory"): without_memory,
            ("ICudaEngine", "device_memory_size"): of_all,
            ("ICudaEngine", "device_memory_size_v2"): of_all,
            ("ICudaEngine", "get_device_memory_size_for_profile_v2"): of_profile,
            ("IExecutionContext", "update_device_memory_size_for_shapes"): for_shapes,
            ("IExecutionContext", "set_device_memory"): take,
        }

    def shapes(self, own: Any) -> dict[str, Shape]:
        return {name: own.stub_graph.shape(name, own.stub_given) for name in own.stub_graph.names}

    def context(self) -> dict[tuple[str, str], Any]:
        def set_shape(own: Any, name: str, shape: Any) -> bool:
            low, _, high = own.stub_graph.profiles[own.stub_profile][name]
            fits = len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))
            if self.failed(own, "set_input_shape") or not fits:
                self.refuse(own, f"IExecutionContext::setInputShape: API Usage Error ({shape} of {name})")
                return False
            own.stub_given[name] = tuple(shape)
            return True

        def infer(own: Any) -> list[str]:
            graph = own.stub_graph
            return [name for name in graph.inputs if -1 in graph.static_shape(name) and name not in own.stub_given]

        def set_address(own: Any, name: str, address: int) -> bool:
            if self.failed(own, "set_tensor_address") or name not in own.stub_graph.names or address % 256:
                self.refuse(own, f"IExecutionContext::setTensorAddress: API Usage Error ({name})")
                return False
            own.stub_bound[name] = address
            return True

        def switch(own: Any, index: int, stream: int) -> bool:
            if self.failed(own, "set_optimization_profile_async") or index >= len(own.stub_graph.profiles):
                raise RuntimeError("Error in set optimization profile async.")
            own.stub_profile, own.stub_given = index, {}
            return True

        return {
            ("IExecutionContext", "set_input_shape"): set_shape,
            ("IExecutionContext", "infer_shapes"): infer,
            ("IExecutionContext", "get_tensor_shape"): lambda own, name: self.shapes(own)[name],
            ("IExecutionContext", "set_tensor_address"): set_address,
            ("IExecutionContext", "set_optimization_profile_async"): switch,
            ("IExecutionContext", "execute_async_v3"): self.execute,
            ("IExecutionContext", "is_stream_capturable"): lambda own, stream: self.stage.capturable,
        }

    def execute(self, own: Any, stream: int) -> bool:
        """Enqueues a run on the addresses as they are now."""
        graph, shapes, bound = own.stub_graph, self.shapes(own), dict(own.stub_bound)
        sized = "set_device_memory" in self.classes["IExecutionContext"]["methods"]
        address = vars(own).get("stub_device_memory")
        workspace = vars(own).get("stub_workspace") or (
            (address, graph.workspace(graph.largest(own.stub_profile))) if address else None
        )
        missing = [name for name in graph.names if name not in bound]
        if self.failed(own, "execute_async_v3"):
            return False
        if missing or any(-1 in shape for shape in shapes.values()):
            self.refuse(own, f"IExecutionContext::enqueueV3: API Usage Error (Address is not set for tensor {missing})")
            return False
        if workspace is None and not own.stub_own_memory:
            what = "setDeviceMemoryV2" if sized else "setDeviceMemory"
            self.refuse(own, f"IExecutionContext::enqueueV3: API Usage Error ({what} was not called)")
            return False
        self.compile(own, shapes)

        def run() -> None:
            self.stage.runs += 1
            # Whatever lay in the workspace is lost
            if workspace is not None:
                self.cuda.view(*workspace, np.uint8)[:] = 0xFF
            views = {name: self.cuda.view(bound[name], shapes[name], _NUMPY[graph.types[name]]) for name in graph.names}
            results = graph.session.run(list(graph.outputs), {name: views[name] for name in graph.inputs})
            for name, value in zip(graph.outputs, results):
                views[name][...] = value

        self.cuda.enqueue(int(stream), run, "engine")
        return True

    def just_in_time(self) -> dict[tuple[str, str], Any]:
        """TensorRT-RTX: a configuration of contexts, and a cache of kernels."""

        def config(own: Any) -> Any:
            made = self.module.IRuntimeConfig()
            made.stub_log, made.stub_strategy, made.stub_cache = own.stub_log, None, None
            return made

        def set_strategy(own: Any, strategy: Any) -> None:
            own.stub_strategy = strategy

        def create_cache(own: Any) -> Any:
            made = self.module.IRuntimeCache()
            made.stub_log, made.stub_kernels = own.stub_log, []
            return made

        def set_cache(own: Any, cache: Any) -> bool:
            own.stub_cache = cache
            names = (own.stub_strategy, own.cuda_graph_strategy, own.dynamic_shapes_kernel_specialization_strategy)
            self.stage.configs.append(tuple(getattr(value, "name", "default") for value in names))  # type: ignore[arg-type]
            self.cache = cache
            return True

        def read(own: Any, blob: Any) -> bool:
            if not self.stage.accepts_cache:
                self.refuse(own, "the runtime cache is of another environment")
                return False
            own.stub_kernels = json.loads(bytes(blob))
            return True

        return {
            ("ICudaEngine", "create_runtime_config"): config,
            ("IRuntimeConfig", "set_execution_context_allocation_strategy"): set_strategy,
            ("IRuntimeConfig", "create_runtime_cache"): create_cache,
            ("IRuntimeConfig", "set_runtime_cache"): set_cache,
            ("IRuntimeCache", "deserialize"): read,
            ("IRuntimeCache", "serialize"): lambda own: json.dumps(own.stub_kernels).encode(),
        }

    cache: Any = None

    def compile(self, own: Any, shapes: Mapping[str, Shape]) -> None:
        """What TensorRT-RTX does in a first run with new shapes."""
        if self.cache is None:
            return
        kernel = json.dumps(shapes, sort_keys=True)
        if kernel not in self.cache.stub_kernels:
            self.stage.compiled.append(kernel)
            self.cache.stub_kernels.append(kernel)
