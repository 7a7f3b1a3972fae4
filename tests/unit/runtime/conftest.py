"""A model of a few bytes in two forms, numpy functions and ONNX files of the same maths, and a bundle around it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motedge.bundle import Contract, FileEntry, GraphEntry, Manifest, TensorSpec, Variant
from motedge.files import sha256_file, write_json
from motedge.runtime.request import GenInputs
from motedge.runtime.tables import StoredTable, Tables

C, H, L, K, D, R, Z, ROWS, COLUMNS, CANVAS, VOCABULARY, DOMAINS = 2, 6, 2, 1, 16, 8, 4, 3, 4, 8, 50, 3
CONFIG = {"latent_patch_size": 2, "base_fps": 24, "rope_axes_dim": [4, 2, 2]}
SIZES = {"C": C, "H": H, "L": L, "K": K, "D": D, "R": R, "Z": Z, "h": ROWS, "w": COLUMNS}


def _weights(seed: int, *shape: int) -> np.ndarray:
    return (np.random.RandomState(seed).standard_normal(shape) / 3).astype(np.float32)


UND_WEIGHT = _weights(1, H, L * 2 * K * D)
VAE_WEIGHT = _weights(2, 3 * CANVAS * CANVAS, C * ROWS * COLUMNS)
TABLE_ARRAYS = {
    "inv_freq": (1e4 ** (-np.arange(R) / R)).astype(np.float32),
    "embed_tokens": _weights(3, VOCABULARY, H),
    "action_in_weight": _weights(4, DOMAINS, Z, H),
    "action_in_bias": _weights(5, DOMAINS, H),
    "action_out_weight": _weights(6, DOMAINS, H, Z),
    "action_out_bias": _weights(7, DOMAINS, Z),
}


def _und(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    scale = np.float32(1 + 0.1 * x["cos"].mean() + 0.1 * x["sin"].mean())
    flat = (x["embeddings"] @ UND_WEIGHT * scale).reshape(-1, L, 2, K, D)
    return [flat.transpose(1, 2, 3, 0, 4)]


def _gen(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    kv = x["und_kv"].astype(np.float32)
    bias = np.float32(kv.mean() + 0.1 * x["cos"].mean() + 0.1 * x["sin"].mean() + x["t"][0] / 1000)
    vision = (np.float32(0.3) * x["vision"] + bias) * x["vision_noisy"][None, :, None, None]
    hidden = np.tanh(x["action"] @ x["action_in_weight"] + x["action_in_bias"] + bias)
    action = (hidden @ x["action_out_weight"] + x["action_out_bias"]) * x["action_noisy"][:, None]
    return [vision, action]


def _vae(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [(x["image"].reshape(1, -1) @ VAE_WEIGHT).reshape(C, 1, ROWS, COLUMNS)]


FUNCTIONS = {"und_prefill": _und, "gen_step": _gen, "vae_encoder": _vae}


def _specs(text: str) -> tuple[TensorSpec, ...]:
    """ "cos:N,R t:1" -> fp32 specs; a name ending in ! has the graph's dtype."""
    found = []
    for part in text.split():
        name, dims = part.split(":")
        letters = tuple(int(d) if d.isdigit() else d for d in dims.split(","))
        found.append(TensorSpec(name.rstrip("!"), letters, "graph" if name.endswith("!") else "fp32", "test"))
    return tuple(found)


CONTRACTS = {
    "und_prefill": Contract(
        "und_prefill", _specs("embeddings:S,H cos:S,R sin:S,R"), _specs("und_kv!:L,2,K,S,D"), SIZES, {"S": (2, 5, 12)}
    ),
    "gen_step": Contract(
        "gen_step",
        _specs(
            "vision:C,T,h,w action:A,Z vision_noisy:T action_noisy:A t:1 cos:N,R sin:N,R und_kv!:L,2,K,U,D "
            "action_in_weight:Z,H action_in_bias:H action_out_weight:H,Z action_out_bias:Z"
        ),
        _specs("vision_velocity:C,T,h,w action_velocity:A,Z"),
        SIZES,
        {"T": (2, 3, 4), "A": (2, 5, 9), "U": (2, 5, 12), "N": (10, 17, 25)},
    ),
    "vae_encoder": Contract(
        "vae_encoder", _specs("image:1,3,Y,X"), _specs("latent:C,1,h,w"), {**SIZES, "Y": CANVAS, "X": CANVAS}, {}
    ),
}


class NumpyEngine:
    """An engine over a function; counts contexts made, arrays bound and runs."""

    dtype = "fp32"

    def __init__(self, graph: str, function: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]) -> None:
        self.contract, self.function, self.counts = CONTRACTS[graph], function, Counter()

    def context(self, dims: Mapping[str, int]) -> NumpyContext:
        self.contract.check_dims(dims)
        self.counts["contexts"] += 1
        return NumpyContext(self, {**self.contract.sizes, **dims})

    def close(self) -> None:
        self.counts["closed"] += 1


class NumpyContext:
    def __init__(self, engine: NumpyEngine, sizes: Mapping[str, int]) -> None:
        self._engine, self._sizes = engine, sizes
        self._inputs: dict[str, np.ndarray] = {}
        self._outputs = {s.name: np.zeros(s.shape(sizes), np.float32) for s in engine.contract.outputs}

    def set_input(self, name: str, value: np.ndarray) -> None:
        assert value.shape == self._engine.contract.tensor(name).shape(self._sizes), name
        assert value.dtype == np.float32
        assert value.flags.c_contiguous
        if self._inputs.get(name) is not value:
            self._engine.counts["bound"] += 1
            self._inputs[name] = value

    def output(self, name: str) -> np.ndarray:
        return self._outputs[name]

    def run(self) -> None:
        self._engine.counts["runs"] += 1
        for buffer, value in zip(self._outputs.values(), self._engine.function(self._inputs)):
            buffer[...] = value


@pytest.fixture
def numpy_engine() -> Callable[..., NumpyEngine]:
    """Makes a counting engine: `numpy_engine("gen_step")`, with another function if one is given."""
    return lambda graph, function=None: NumpyEngine(graph, function or FUNCTIONS[graph])


@pytest.fixture
def tables() -> Tables:
    return Tables({name: StoredTable(array, "fp32") for name, array in TABLE_ARRAYS.items()})


@pytest.fixture
def model() -> SimpleNamespace:
    """Sizes, configuration, functions and contracts of the model."""
    return SimpleNamespace(
        config=CONFIG, functions=FUNCTIONS, contracts=CONTRACTS, sizes=SIZES, tables=TABLE_ARRAYS, canvas=CANVAS
    )


@pytest.fixture
def gen_inputs() -> Callable[..., GenInputs]:
    """A request with frame 0 and row 0 clean; keyword arguments replace fields."""

    def make(**changes: Any) -> GenInputs:
        random = np.random.RandomState(11)
        vision_noisy, action_noisy = np.ones(3, np.float32), np.ones(5, np.float32)
        vision_noisy[0] = action_noisy[0] = 0
        action_clean = np.zeros((5, Z), np.float32)
        action_clean[0, :3] = (0.1, -0.2, 0.3)
        fields: dict[str, Any] = {
            "vision_clean": random.standard_normal((C, 3, ROWS, COLUMNS)).astype(np.float32),
            "vision_noisy": vision_noisy,
            "action_clean": action_clean,
            "action_noisy": action_noisy,
            "cond_tokens": np.array([7, 3, 9, 20, 4], np.int64),
            "uncond_tokens": np.array([7, 20, 4], np.int64),
            "fps": 15.0,
            "domain_id": 1,
            "raw_dim": 3,
            "seed": 5,
        }
        return GenInputs(**{**fields, **changes})

    return make


@pytest.fixture
def onnx_bundle(tmp_path: Path) -> Path:
    """The model as a bundle: three ONNX graphs, contracts, tables. No samples."""
    root = tmp_path / "bundle"
    graphs = {}
    for graph, contract in CONTRACTS.items():
        write_json(root / f"contracts/{graph}.json", contract.to_dict())
        file = f"graphs/{graph}.primitive-fp32.onnx"
        save_onnx(root / file, graph)
        variant = Variant(file=file, weights=(), dialect="primitive", dtype="fp32", opset=17)
        graphs[graph] = GraphEntry(contract=f"contracts/{graph}.json", variants={"primitive-fp32": variant})
    entries = {}
    for name, array in TABLE_ARRAYS.items():
        (root / "tables").mkdir(exist_ok=True)
        (root / f"tables/{name}.bin").write_bytes(array.tobytes())
        entries[name] = {
            "file": f"tables/{name}.bin",
            "dtype": "fp32",
            "shape": list(array.shape),
            "meaning": "test",
        }
    manifest = Manifest(
        model={"family": "edge", "config": CONFIG}, shape_set={}, policy={}, graphs=graphs, files={}, tables=entries
    )
    save_manifest(root, manifest)
    return root


@pytest.fixture
def seal() -> Callable[..., None]:
    """`seal(root, samples=...)`: records every file anew in the manifest, with other fields changed."""
    return _seal


def _seal(root: Path, **changes: Any) -> None:
    manifest = Manifest.from_dict(json.loads((root / "manifest.json").read_text()))
    save_manifest(root, dataclasses.replace(manifest, **changes))


def save_manifest(root: Path, manifest: Manifest) -> None:
    files = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name != "manifest.json":
            files[name] = FileEntry(sha256_file(path), path.stat().st_size, name.split("/")[0])
    write_json(root / "manifest.json", dataclasses.replace(manifest, files=files).to_dict())


def save_onnx(path: Path, graph: str) -> None:
    """Writes the graph's function as ONNX, opset 17."""
    onnx = pytest.importorskip("onnx")
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    contract = CONTRACTS[graph]

    def values(specs: tuple[TensorSpec, ...]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                s.name, f32, [contract.sizes.get(d, d) if isinstance(d, str) else d for d in s.dims]
            )
            for s in specs
        ]

    constants = {
        "und_weight": UND_WEIGHT,
        "vae_weight": VAE_WEIGHT,
        "one": np.float32(1),
        "tenth": np.float32(0.1),
        "third": np.float32(0.3),
        "thousandth": np.float32([0.001]),
        "und_shape": np.array([-1, L, 2, K, D], np.int64),
        "vae_in": np.array([1, -1], np.int64),
        "vae_out": np.array([C, 1, ROWS, COLUMNS], np.int64),
        "frame_mask": np.array([1, -1, 1, 1], np.int64),
        "row_mask": np.array([-1, 1], np.int64),
    }
    nodes = [_node(helper, line) for line in _PROGRAMS[graph].strip().splitlines()]
    used = {name for node in nodes for name in node.input}
    initializers = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used]
    built = helper.make_graph(nodes, graph, values(contract.inputs), values(contract.outputs), initializers)
    made = helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)


def _node(helper: Any, line: str) -> Any:
    output, _, operator, *inputs = line.split()
    attributes = {}
    if operator == "ReduceMean":
        attributes = {"keepdims": 0}
    if operator == "Transpose":
        attributes = {"perm": [1, 2, 3, 0, 4]}
    return helper.make_node(operator, inputs, [output], **attributes)


_ANGLES = """
mc = ReduceMean cos
ms = ReduceMean sin
angles = Add mc ms
small = Mul angles tenth
"""
_PROGRAMS = {
    "und_prefill": _ANGLES
    + """y = MatMul embeddings und_weight
scale = Add small one
scaled = Mul y scale
shaped = Reshape scaled und_shape
und_kv = Transpose shaped""",
    "gen_step": _ANGLES
    + """mk = ReduceMean und_kv
a = Add mk small
tau = Mul t thousandth
bias = Add a tau
v = Mul vision third
vb = Add v bias
fm = Reshape vision_noisy frame_mask
vision_velocity = Mul vb fm
p = MatMul action action_in_weight
q = Add p action_in_bias
r = Add q bias
hidden = Tanh r
o = MatMul hidden action_out_weight
ob = Add o action_out_bias
rm = Reshape action_noisy row_mask
action_velocity = Mul ob rm""",
    "vae_encoder": """
f = Reshape image vae_in
m = MatMul f vae_weight
latent = Reshape m vae_out""",
}
