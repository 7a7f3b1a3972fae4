"""A small graph like a layer of Edge's generator, with two sets of weights, to be refitted by a real TensorRT.

A biased projection, RMSNorm with its weight in fp32, the squared ReLU between its two scales, a residual: what
refitting could get wrong, each once. Opset 17, for TensorRT 8.6. Only `write_graph` needs onnx: where a GPU is, the
files that it made (tests/data/device/) are read. `reference` says what must come out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data" / "device"
WIDTH, INNER, EPSILON = 16, 32, 1e-6
ROWS = (2, 5, 16)
NORM = "layers.0.post_attention_layernorm_moe_gen.weight"
UP, DOWN = "layers.0.mlp_moe_gen.up_proj.weight", "layers.0.mlp_moe_gen.down_proj.weight"
SCALE, INVERSE = "layers.0.mlp_moe_gen.relu2_scale", "layers.0.mlp_moe_gen.relu2_inverse"
SETS = ("old", "new")
Weights = Dict[str, np.ndarray]


def weights(name: str) -> Weights:
    """The weights "old" or "new". The new ones need a scale of the squared ReLU; to the old it is 1."""
    old = name == "old"
    drawn = np.random.RandomState(0 if old else 1)

    def uniform(*shape: int) -> np.ndarray:
        return drawn.uniform(-1, 1, shape)

    up, scale = uniform(WIDTH, INNER) * (0.3 if old else 150.0), 1.0 if old else 2.0**-3
    half = {
        "proj_in.weight": uniform(WIDTH, WIDTH) * 0.5,
        "proj_in.bias": uniform(WIDTH) * 2,
        UP: up,
        DOWN: uniform(INNER, WIDTH) * (0.3 if old else 1e-3),
        SCALE: np.array([scale]),
        INVERSE: np.array([1 / scale]),
    }
    norm = (1 + 0.5 * uniform(WIDTH)).astype(np.float32)
    return {**{key: value.astype(np.float16) for key, value in half.items()}, NORM: norm}


def inputs(rows: int) -> np.ndarray:
    """[rows, WIDTH] fp32."""
    return np.random.RandomState(rows).uniform(-1, 1, (rows, WIDTH)).astype(np.float32)


def reference(given: Weights, x: np.ndarray) -> np.ndarray:
    """What the graph computes, in fp64 from the weights as they are stored; [rows, WIDTH]."""
    output: np.ndarray = _hidden(given, x) + squares(given, x) @ _exact(given, DOWN) * _exact(given, INVERSE) ** 2
    return output


def squares(given: Weights, x: np.ndarray) -> np.ndarray:
    """What goes into down_proj, which fp16 must hold; [rows, INNER]."""
    hidden = _hidden(given, x)
    normed = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + EPSILON) * _exact(given, NORM)
    inner: np.ndarray = np.maximum(normed @ _exact(given, UP), 0) * _exact(given, SCALE)
    return inner * inner


def _hidden(given: Weights, x: np.ndarray) -> np.ndarray:
    value: np.ndarray = x.astype(np.float64) @ _exact(given, "proj_in.weight") + _exact(given, "proj_in.bias")
    return value


def _exact(given: Weights, name: str) -> np.ndarray:
    return given[name].astype(np.float64)


def path(name: str) -> Path:
    """The committed ONNX file with the weights "old" or "new"."""
    return DATA / f"refit_{name}.onnx"


def write_graph(name: str, target: Path) -> Path:
    """Writes the graph with the weights "old" or "new"."""
    from onnx import TensorProto, helper, numpy_helper, save

    half, wide = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], "in/Cast", to=half),
        helper.make_node("MatMul", ["x16", "proj_in.weight"], ["p"], "proj_in/MatMul"),
        helper.make_node("Add", ["p", "proj_in.bias"], ["h"], "proj_in/Add"),
        helper.make_node("Cast", ["h"], ["h32"], "norm/CastUp", to=wide),
        helper.make_node("Mul", ["h32", "h32"], ["squares"], "norm/Square"),
        helper.make_node("ReduceMean", ["squares"], ["mean"], "norm/Mean", axes=[-1], keepdims=1),
        helper.make_node("Add", ["mean", "constant_0"], ["shifted"], "norm/Add"),
        helper.make_node("Sqrt", ["shifted"], ["root"], "norm/Sqrt"),
        helper.make_node("Reciprocal", ["root"], ["inverse"], "norm/Reciprocal"),
        helper.make_node("Mul", ["h32", "inverse"], ["unit"], "norm/Mul"),
        helper.make_node("Mul", ["unit", NORM], ["normed32"], "norm/Weight"),
        helper.make_node("Cast", ["normed32"], ["normed"], "norm/CastDown", to=half),
        helper.make_node("MatMul", ["normed", UP], ["up"], "layers.0.mlp_moe_gen.up_proj/MatMul"),
        helper.make_node("Relu", ["up"], ["positive"], "relu2/Relu"),
        helper.make_node("Mul", ["positive", SCALE], ["scaled"], "relu2/Scale"),
        helper.make_node("Mul", ["scaled", "scaled"], ["square"], "relu2/Square"),
        helper.make_node("MatMul", ["square", DOWN], ["down"], "layers.0.mlp_moe_gen.down_proj/MatMul"),
        helper.make_node("Mul", ["down", INVERSE], ["once"], "relu2/Inverse0"),
        helper.make_node("Mul", ["once", INVERSE], ["twice"], "relu2/Inverse1"),
        helper.make_node("Add", ["h", "twice"], ["y16"], "residual/Add"),
        helper.make_node("Cast", ["y16"], ["y"], "out/Cast", to=wide),
    ]
    constants = {**weights(name), "constant_0": np.array(EPSILON, np.float32)}
    ends = [helper.make_tensor_value_info(end, wide, ["N", WIDTH]) for end in ("x", "y")]
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "refit", ends[:1], ends[1:], initializers)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(target))
    return target


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for which in SETS:
        write_graph(which, path(which))
