"""What the stub of TensorRT does: parses real ONNX files into layers, writes a plan, answers the inspector.

Everything that a build sets or calls is kept in a `Stage`, for tests to look at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Optional

import onnx
from onnx import TensorProto
from tensorrt_stub import make_module, read_api

PLAN = b"a plan of the stub " * 4000
_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.INT8: "INT8",
    TensorProto.INT4: "INT4",
    TensorProto.INT64: "INT64",
}
_KINDS = {
    "MatMul": "MATRIX_MULTIPLY",
    "Conv": "CONVOLUTION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Attention": "ATTENTION_INPUT",
    "Softmax": "SOFTMAX",
    "Cast": "CAST",
    "Transpose": "SHUFFLE",
    "Reshape": "SHUFFLE",
}
_FUSED = ("Attention", "RotaryEmbedding", "RMSNormalization")


@dataclass
class Stage:
    """What a build did, and how the library is to behave."""

    # Behaviour
    refuse: str = ""
    cache_fits: bool = True
    loads: bool = True
    # What was seen
    network_flags: int = 0
    builder_flags: list[str] = field(default_factory=list)
    pools: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    profiles: int = 0
    caches_read: list[bytes] = field(default_factory=list)
    config: Any = None
    streamed: bool = False
    tactic_sources: Optional[int] = None
    layers: list[Any] = field(default_factory=list)
    # Layer -> types that were set for its outputs
    output_types: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_library(version: str, stage: Stage) -> ModuleType:
    """The stub of a release, on a stage."""
    scene = _Scene(stage, "IAttentionInputLayer" in read_api(version)["classes"])
    scene.tensors_key = "I/O Tensors" if version.startswith("11") else "Bindings"
    scene.module = make_module(
        version, {**scene.parser(), **scene.network(), **scene.builder(), **scene.config(), **scene.engine()}
    )
    return scene.module


class _Scene:
    """What members do, by class. `own` is the stub's object, as `self` is in its methods."""

    module: Any
    tensors_key: str

    def __init__(self, stage: Stage, fused: bool) -> None:
        self.stage, self.fused = stage, fused

    def parser(self) -> dict[tuple[str, str], Any]:
        def start(own: Any, network: Any, logger: Any) -> None:
            own.stub_network, own.stub_errors = network, []

        def parse(own: Any, path: str) -> bool:
            model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
            for node in model.graph.node:
                if node.op_type in _FUSED and not self.fused:
                    error = self.module.ParserError()
                    error.stub_node = node
                    own.stub_errors.append(error)
                    return False
            own.stub_network.stub_layers, own.stub_network.stub_inputs = _layers(self.module, model)
            self.stage.layers = own.stub_network.stub_layers
            return True

        return {
            ("OnnxParser", "__init__"): start,
            ("OnnxParser", "parse_from_file"): parse,
            ("OnnxParser", "num_errors"): lambda own: len(own.stub_errors),
            ("OnnxParser", "get_error"): lambda own, index: own.stub_errors[index],
            ("ParserError", "desc"): lambda own: f"no importer for {own.stub_node.op_type}",
            ("ParserError", "node_name"): lambda own: own.stub_node.name,
            ("ParserError", "node_operator"): lambda own: own.stub_node.op_type,
        }

    def network(self) -> dict[tuple[str, str], Any]:
        return {
            ("INetworkDefinition", "num_inputs"): lambda own: len(own.stub_inputs),
            ("INetworkDefinition", "get_input"): lambda own, index: own.stub_inputs[index],
            ("INetworkDefinition", "num_layers"): lambda own: len(own.stub_layers),
            ("INetworkDefinition", "get_layer"): lambda own, index: own.stub_layers[index],
            ("ILayer", "num_inputs"): lambda own: len(own.stub_in),
            ("ILayer", "get_input"): lambda own, index: own.stub_in[index],
            ("ILayer", "num_outputs"): lambda own: len(own.stub_out),
            ("ILayer", "get_output"): lambda own, index: own.stub_out[index],
            ("ILayer", "set_output_type"): lambda own, index, dtype: self.stage.output_types.update(
                {own.name: (*self.stage.output_types.get(own.name, ()), dtype.name)}
            ),
            ("IAttentionBoundaryLayer", "attention"): lambda own: own.stub_boundary,
            ("IAttention", "get_input"): lambda own, index: own.stub_in[index],
            ("IAttention", "decomposable"): False,
        }

    def builder(self) -> dict[tuple[str, str], Any]:
        stage = self.stage

        def start(own: Any, logger: Any) -> None:
            own.stub_logger = logger

        def create_network(own: Any, flags: int = 0) -> Any:
            stage.network_flags = flags
            return self.module.INetworkDefinition()

        def create_config(own: Any) -> Any:
            stage.config = self.module.IBuilderConfig()
            return stage.config

        def build(own: Any, network: Any, config: Any) -> Any:
            return None if self._refused(own.stub_logger, config) else bytearray(PLAN)

        def build_to_stream(own: Any, network: Any, config: Any, writer: Any) -> bool:
            stage.streamed = True
            if self._refused(own.stub_logger, config):
                return False
            pieces = [PLAN[start : start + 1000] for start in range(0, len(PLAN), 1000)]
            return all(writer.write(piece) == len(piece) for piece in pieces)

        return {
            ("Builder", "__init__"): start,
            ("Builder", "create_network"): create_network,
            ("Builder", "create_builder_config"): create_config,
            ("Builder", "create_optimization_profile"): lambda own: self.module.IOptimizationProfile(),
            ("Builder", "build_serialized_network"): build,
            ("Builder", "build_serialized_network_to_stream"): build_to_stream,
            ("IOptimizationProfile", "set_shape"): lambda own, name, *spans: stage.shapes.update({name: spans}),
        }

    def config(self) -> dict[tuple[str, str], Any]:
        stage = self.stage

        def create_cache(own: Any, data: bytes) -> Any:
            stage.caches_read.append(data)
            return self.module.ITimingCache()

        def set_cache(own: Any, cache: Any, ignore_mismatch: bool) -> bool:
            fits = stage.cache_fits or not stage.caches_read[-1]
            if fits:
                own.stub_cache = cache
            return fits

        def add_profile(own: Any, profile: Any) -> int:
            stage.profiles += 1
            return 0

        return {
            ("IBuilderConfig", "set_flag"): lambda own, flag: stage.builder_flags.append(flag.name),
            ("IBuilderConfig", "set_memory_pool_limit"): lambda own, pool, size: stage.pools.update({pool.name: size}),
            ("IBuilderConfig", "set_tactic_sources"): lambda own, sources: setattr(stage, "tactic_sources", sources),
            ("IBuilderConfig", "add_optimization_profile"): add_profile,
            ("IBuilderConfig", "create_timing_cache"): create_cache,
            ("IBuilderConfig", "set_timing_cache"): set_cache,
            ("IBuilderConfig", "get_timing_cache"): lambda own: vars(own).get("stub_cache"),
            ("ITimingCache", "serialize"): lambda own: bytearray(b"tactics of the stub"),
        }

    def engine(self) -> dict[tuple[str, str], Any]:
        def load(own: Any, plan: Any) -> Any:
            return self.module.ICudaEngine() if self.stage.loads and bytes(plan) == PLAN else None

        def information(own: Any, form: Any) -> str:
            assert form == self.module.LayerInformationFormat.JSON
            return json.dumps(inspector_json(self.tensors_key))

        return {
            ("Runtime", "deserialize_cuda_engine"): load,
            ("ICudaEngine", "create_engine_inspector"): lambda own: self.module.EngineInspector(),
            ("ICudaEngine", "device_memory_size"): 111,
            ("ICudaEngine", "device_memory_size_v2"): 222,
            ("EngineInspector", "get_engine_information"): information,
        }

    def _refused(self, logger: Any, config: Any) -> bool:
        """A build with its phases and its log."""
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 4)
            for step in range(4):
                monitor.step_complete("Building engine", step)
            monitor.phase_finish("Building engine")
        severity = self.module.ILogger.Severity
        logger.log(severity.WARNING, "a warning of the stub")
        if self.stage.refuse:
            logger.log(severity.ERROR, self.stage.refuse)
        return bool(self.stage.refuse)


def inspector_json(tensors_key: str) -> dict[str, Any]:
    """As NVIDIA's documentation shows the inspector's answer: 10.x with "Bindings", 11 with "I/O Tensors"."""
    new = tensors_key == "I/O Tensors"

    def described(name: str, kind: str) -> dict[str, Any]:
        if new:
            return {"Name": name, "Dimensions": [1, 8], "Format": "Row Major Linear", "Datatype": kind}
        return {"Name": name, "Dimensions": [1, 8], "Format/Datatype": f"Row major linear {kind}"}

    layers = [
        {
            "Name": "layers.0.up_proj/MatMul",
            "LayerType": "gemm",
            "Inputs": [described("x", "FP16"), described("w", "FP16")],
            "Outputs": [described("y", "FP16")],
            "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n",
        },
        {
            "Name": "layers.0.down_proj/MatMul",
            "LayerType": "gemm",
            "Inputs": [described("y", "FP32"), described("w2", "FP32")],
            "Outputs": [described("z", "FP32")],
            "TacticName": "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n",
        },
    ]
    tensors: list[Any] = ["x", "z"]
    if new:
        tensors = [{"Name": name, "IOMode": mode} for name, mode in (("x", "Input"), ("z", "Output"))]
    return {"Layers": layers, tensors_key: tensors}


def _tensor(module: Any, name: str, kind: str, shape: tuple[int, ...] = ()) -> Any:
    made = module.ITensor()
    made.stub_name, made.stub_dtype, made.stub_shape = name, getattr(module.DataType, kind), shape
    return made


def _layers(module: Any, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    """Layers and inputs of an ONNX graph; an initializer is a CONSTANT layer, as in the real parser."""
    graph = model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    tensors: dict[str, Any] = {}

    def find(name: str) -> Any:
        if name not in tensors:
            kind = known[name].type.tensor_type if name in known else None
            shape = tuple(d.dim_value or -1 for d in kind.shape.dim) if kind else ()
            tensors[name] = _tensor(module, name, _TYPES.get(kind.elem_type, "FLOAT") if kind else "FLOAT", shape)
        return tensors[name]

    layers = []
    for constant in graph.initializer:
        tensors[constant.name] = _tensor(module, constant.name, _TYPES[constant.data_type], tuple(constant.dims))
        layers.append(_layer(module, "CONSTANT", constant.name, [], [tensors[constant.name]]))
    for node in graph.node:
        inputs, outputs = [find(name) for name in node.input if name], [find(name) for name in node.output]
        layer = _layer(module, _KINDS.get(node.op_type, "ELEMENTWISE"), node.name, inputs, outputs)
        if node.op_type == "Attention":
            layer.stub_boundary = module.IAttention()
            layer.stub_boundary.stub_in = inputs
        layers.append(layer)
    names = {constant.name for constant in graph.initializer}
    return layers, [find(value.name) for value in graph.input if value.name not in names]


def _layer(module: Any, kind: str, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
    layer = module.ILayer()
    layer.stub_type, layer.stub_name = getattr(module.LayerType, kind), name
    layer.stub_in, layer.stub_out = inputs, outputs
    return layer
