"""What the stub of TensorRT does: parses real ONNX files into layers, writes a plan, answers the inspector.

Everything that a build sets or calls is kept in a `Stage`, for tests to look at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

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


def make_library(version: str, stage: Stage) -> ModuleType:
    """The stub of a release, on a stage."""
    module: ModuleType
    api = read_api(version)
    fused = "IAttentionInputLayer" in api["classes"]
    tensors_key = "I/O Tensors" if version.startswith("11") else "Bindings"

    def tensor(name: str, kind: str, shape: tuple[int, ...] = ()) -> Any:
        made = module.ITensor()
        made.stub_name, made.stub_dtype, made.stub_shape = name, getattr(module.DataType, kind), shape
        return made

    def parse(self: Any, path: str) -> bool:
        self.stub_errors = []
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
        for node in model.graph.node:
            if node.op_type in _FUSED and not fused:
                error = module.ParserError()
                error.stub_node = node
                self.stub_errors.append(error)
                return False
        self.stub_network.stub_layers, self.stub_network.stub_inputs = _layers(module, model, tensor)
        return True

    def log(self: Any, level: str, text: str) -> None:
        self.stub_logger.log(getattr(module.ILogger.Severity, level), text)

    def start_parser(self: Any, network: Any, logger: Any) -> None:
        self.stub_network, self.stub_logger, self.stub_errors = network, logger, []

    def start_builder(self: Any, logger: Any) -> None:
        self.stub_logger = logger

    def create_network(self: Any, flags: int = 0) -> Any:
        stage.network_flags = flags
        return module.INetworkDefinition()

    def create_config(self: Any) -> Any:
        stage.config = module.IBuilderConfig()
        return stage.config

    def refused(self: Any, config: Any) -> bool:
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 4)
            for step in range(4):
                monitor.step_complete("Building engine", step)
            monitor.phase_finish("Building engine")
        log(self, "WARNING", "a warning of the stub")
        if stage.refuse:
            log(self, "ERROR", stage.refuse)
        return bool(stage.refuse)

    def build(self: Any, network: Any, config: Any) -> Any:
        return None if refused(self, config) else bytearray(PLAN)

    def build_to_stream(self: Any, network: Any, config: Any, writer: Any) -> bool:
        stage.streamed = True
        if refused(self, config):
            return False
        return all(writer.write(PLAN[i : i + 1000]) == len(PLAN[i : i + 1000]) for i in range(0, len(PLAN), 1000))

    def create_cache(self: Any, data: bytes) -> Any:
        stage.caches_read.append(data)
        return module.ITimingCache()

    def set_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        fits = stage.cache_fits or not stage.caches_read[-1]
        if fits:
            object.__setattr__(self, "stub_cache", cache)
        return fits

    def engine_information(self: Any, form: Any) -> str:
        assert form == module.LayerInformationFormat.JSON
        return json.dumps(inspector_json(tensors_key))

    def add_profile(self: Any, profile: Any) -> int:
        stage.profiles += 1
        return 0

    def load(self: Any, plan: bytes) -> Any:
        return module.ICudaEngine() if stage.loads and bytes(plan) == PLAN else None

    behaviour: dict[tuple[str, str], Any] = {
        ("Builder", "__init__"): start_builder,
        ("Builder", "create_network"): create_network,
        ("Builder", "create_builder_config"): create_config,
        ("Builder", "create_optimization_profile"): lambda self: module.IOptimizationProfile(),
        ("Builder", "build_serialized_network"): build,
        ("Builder", "build_serialized_network_to_stream"): build_to_stream,
        ("OnnxParser", "__init__"): start_parser,
        ("OnnxParser", "parse_from_file"): parse,
        ("OnnxParser", "num_errors"): lambda self: len(self.stub_errors),
        ("OnnxParser", "get_error"): lambda self, index: self.stub_errors[index],
        ("ParserError", "desc"): lambda self: f"no importer for {self.stub_node.op_type}",
        ("ParserError", "node_name"): lambda self: self.stub_node.name,
        ("ParserError", "node_operator"): lambda self: self.stub_node.op_type,
        ("INetworkDefinition", "num_inputs"): lambda self: len(self.stub_inputs),
        ("INetworkDefinition", "get_input"): lambda self, index: self.stub_inputs[index],
        ("INetworkDefinition", "num_layers"): lambda self: len(self.stub_layers),
        ("INetworkDefinition", "get_layer"): lambda self, index: self.stub_layers[index],
        ("ILayer", "num_inputs"): lambda self: len(self.stub_in),
        ("ILayer", "get_input"): lambda self, index: self.stub_in[index],
        ("ILayer", "num_outputs"): lambda self: len(self.stub_out),
        ("ILayer", "get_output"): lambda self, index: self.stub_out[index],
        ("IAttentionBoundaryLayer", "attention"): lambda self: self.stub_boundary,
        ("IAttention", "get_input"): lambda self, index: self.stub_in[index],
        ("IAttention", "decomposable"): False,
        ("IBuilderConfig", "set_flag"): lambda self, flag: stage.builder_flags.append(flag.name),
        ("IBuilderConfig", "set_memory_pool_limit"): lambda self, pool, size: stage.pools.update({pool.name: size}),
        ("IBuilderConfig", "add_optimization_profile"): add_profile,
        ("IBuilderConfig", "create_timing_cache"): create_cache,
        ("IBuilderConfig", "set_timing_cache"): set_cache,
        ("IBuilderConfig", "get_timing_cache"): lambda self: vars(self).get("stub_cache"),
        ("ITimingCache", "serialize"): lambda self: bytearray(b"tactics of the stub"),
        ("IOptimizationProfile", "set_shape"): lambda self, name, *spans: stage.shapes.update({name: spans}),
        ("Runtime", "deserialize_cuda_engine"): load,
        ("ICudaEngine", "create_engine_inspector"): lambda self: module.EngineInspector(),
        ("ICudaEngine", "device_memory_size"): 111,
        ("ICudaEngine", "device_memory_size_v2"): 222,
        ("EngineInspector", "get_engine_information"): engine_information,
    }
    module = make_module(version, behaviour)
    return module


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


def _layers(module: Any, model: onnx.ModelProto, tensor: Any) -> tuple[list[Any], list[Any]]:
    """Layers and inputs of an ONNX graph; an initializer is a CONSTANT layer, as in the real parser."""
    graph = model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    tensors: dict[str, Any] = {}

    def find(name: str) -> Any:
        if name not in tensors:
            kind = known[name].type.tensor_type if name in known else None
            shape = tuple(d.dim_value or -1 for d in kind.shape.dim) if kind else ()
            tensors[name] = tensor(name, _TYPES.get(kind.elem_type, "FLOAT") if kind else "FLOAT", shape)
        return tensors[name]

    layers = []
    for constant in graph.initializer:
        tensors[constant.name] = tensor(constant.name, _TYPES[constant.data_type], tuple(constant.dims))
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
