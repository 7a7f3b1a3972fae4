"""What the ONNX files hold: operators, types, names, weights, and nothing of the machine that made them."""

from __future__ import annotations

import collections
import functools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import UsageError
from motedge.export.plan import make_plan
from motedge.export.shapes import SHAPE_SETS
from motedge.export.variants import VARIANTS
from motedge.runtime.backends import open_engine

GRAPH_NAMES = ("und_prefill", "gen_step", "vae_encoder")
CASES = [(f, g, v) for f in ("edge", "nano") for g in GRAPH_NAMES for v in VARIANTS]
CASES += [("super", g, "primitive-fp32") for g in GRAPH_NAMES]
ELEMENT_TYPES = {
    "fp32": onnx.TensorProto.FLOAT,
    "fp16": onnx.TensorProto.FLOAT16,
    "bf16": onnx.TensorProto.BFLOAT16,
}
TORCH_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}
FUSED = ("Attention", "RotaryEmbedding", "RMSNormalization")
GENERATOR = re.compile(r"_moe_gen\.|\.add_|\.norm_added_|^proj_|^time_embedder\.|^action_modality_embed$|to_add_out")
# What follows the last layer's K and V
DEAD_IN_LAST_LAYER = re.compile(r"self_attn\.(to_q|to_out|norm_q)\.|post_attention_layernorm\.|\.mlp\.")


class Case:
    """One ONNX file, its checkpoint and what the manifest says of it."""

    def __init__(self, bundle: Path, checkpoint: Path, graph: str, variant: str) -> None:
        self.bundle, self.checkpoint = Bundle.open(bundle), Checkpoint.open(checkpoint)
        self.graph, self.entry = graph, self.bundle.variant(graph, variant)
        self.path = self.bundle.root / self.entry.file
        self.model = onnx.load(str(self.path), load_external_data=False)
        self.config = self.checkpoint.config
        self.operators = collections.Counter(node.op_type for node in self.model.graph.node)
        self.external = {t.name: t for t in self.model.graph.initializer if t.external_data}

    def weight(self, name: str) -> torch.Tensor:
        """A weight as the ONNX file refers to it."""
        proto = self.external[name]
        place = {entry.key: entry.value for entry in proto.external_data}
        raw = np.memmap(
            self.path.parent / place["location"], np.uint8, "r", int(place["offset"]), (int(place["length"]),)
        )
        return torch.from_numpy(np.array(raw)).view(TORCH_TYPES[proto.data_type]).reshape(tuple(proto.dims))


@pytest.fixture(scope="session")
def cases(bundles: dict[str, Path], full_variants: dict[str, Path], checkpoints: dict[str, Path]):
    roots = {**full_variants, "super": bundles["super"]}
    return functools.lru_cache(None)(lambda family, *which: Case(roots[family], checkpoints[family], *which))


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request: pytest.FixtureRequest, cases) -> Case:
    return cases(*request.param)


def test_opset_and_domains(case: Case) -> None:
    assert [(o.domain, o.version) for o in case.model.opset_import] == [("", case.entry.opset)]
    assert case.entry.opset == {"fused": 23, "primitive": 20}[case.entry.dialect]
    assert case.model.ir_version <= 10
    assert {node.domain for node in case.model.graph.node} <= {"", "ai.onnx"} and not case.model.functions


def test_every_weight_that_the_graph_needs_is_an_initializer_of_its_own_name(case: Case) -> None:
    store = case.checkpoint.vae if case.graph == "vae_encoder" else case.checkpoint.transformer
    assert set(case.external) == set(_needed(case, list(store)))


def _needed(case: Case, keys: list[str]) -> list[str]:
    if case.graph == "vae_encoder":
        return [k for k in keys if k.startswith(("encoder.", "quant_conv.")) and "time_conv" not in k]
    if case.graph == "gen_step":
        return [k for k in keys if GENERATOR.search(k)]
    last = f"layers.{case.config.num_hidden_layers - 1}."
    tower = [k for k in keys if k.startswith("layers.") and not GENERATOR.search(k)]
    return [k for k in tower if not (k.startswith(last) and DEAD_IN_LAST_LAYER.search(k))]


def test_every_weight_holds_the_checkpoints_values(case: Case) -> None:
    store = case.checkpoint.vae if case.graph == "vae_encoder" else case.checkpoint.transformer
    for name, proto in case.external.items():
        layout = {entry.key: entry.value for entry in proto.metadata_props}["layout"]
        source = store.tensor(name)
        if layout == "transposed":
            source = source.T
        elif layout == "last_tap":
            source = source[..., -1, :, :]
        elif layout == "mean_half":
            source = source[: len(source) // 2]
        else:
            assert layout == "as_is"
        expected = source.to(TORCH_TYPES[proto.data_type]).flatten()
        assert torch.equal(case.weight(name).flatten(), expected), name


def test_dead_code_of_the_reasoner_is_left_out(case: Case) -> None:
    text = case.path.read_bytes()
    for name in (b"lm_head", b"embed_tokens", b"decoder.", b"time_conv", b"action_proj", b"audio_"):
        assert name not in text
    names = {t.name for t in case.model.graph.initializer} | {node.name for node in case.model.graph.node}
    assert not any(name.startswith("norm.") for name in names)
    if case.graph == "und_prefill":
        last = f"layers.{case.config.num_hidden_layers - 1}."
        assert not [n for n in names if n.startswith(last) and DEAD_IN_LAST_LAYER.search(n.replace("/", "."))]


def test_node_names_are_unique_and_none_is_a_prefix_of_another(case: Case) -> None:
    names = sorted(node.name for node in case.model.graph.node)
    assert all(names)
    # In sorted order a prefix stands right before the names that it begins
    clashes = [(a, b) for a, b in zip(names, names[1:], strict=False) if b.startswith(a)]
    assert clashes == []


def test_nothing_tells_of_the_machine_that_exported(case: Case) -> None:
    data = case.path.read_bytes()
    for text in (b".py", b"site-packages", b"pkg.torch", b"/home", b"/tmp", b"torch.", str(Path.cwd()).encode()):
        assert text not in data
    graph = case.model.graph
    assert not case.model.doc_string and not graph.doc_string
    assert not any(part.doc_string for part in (*graph.node, *graph.input, *graph.output, *graph.initializer))
    assert not any(node.metadata_props for node in graph.node)
    assert {entry.key for entry in case.model.metadata_props} <= {"motedge.graph", "motedge.relu2_ranges"}


def test_fused_operators_by_formula(case: Case) -> None:
    layers, config = case.config.num_hidden_layers, case.config
    counts = tuple(case.operators[name] for name in FUSED)
    if case.entry.dialect == "primitive":
        assert counts == (0, 0, 0)
    elif case.graph == "vae_encoder":
        assert counts == (1, 0, 0)
    elif case.graph == "gen_step":
        # q and k rotated; two norms a layer, those of q and k, and the last one
        assert counts == (layers, 2 * layers, 4 * layers + 1)
    else:
        # The last layer rotates and normalises its key alone; Edge has a second key for the generator
        keys = 2 if config.und_k_norm_for_gen else 1
        queries = layers - 1 if config.qk_norm_for_text else 0
        norms = layers + (layers - 1) + layers + queries
        assert counts == (layers - 1, (1 + keys) * (layers - 1) + 1, norms)


def test_types_follow_the_variant(case: Case) -> None:
    """By onnx's strict inference, which also covers what onnxruntime can't run: bf16."""
    model = onnx.shape_inference.infer_shapes(case.model, check_type=True, strict_mode=True, data_prop=True)
    own = ELEMENT_TYPES[case.entry.dtype]
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    types.update({v.name: v.type.tensor_type.elem_type for v in model.graph.input})
    types.update({t.name: t.data_type for t in model.graph.initializer})
    floats = set(TORCH_TYPES) | {onnx.TensorProto.DOUBLE}
    assert {kind for kind in types.values() if kind in floats} <= {own, onnx.TensorProto.FLOAT}
    wide = [n.name for n in model.graph.node if n.op_type in ("MatMul", "Conv", "Attention", "Gemm")]
    wide = [name for name, node in zip(wide, _heavy(model), strict=True) if types[node.output[0]] != own]
    assert not [name for name in wide if "time_embedder" not in name]
    kept = {name for name, t in case.external.items() if t.data_type != own}
    expected = {n for n in case.external if n.startswith("time_embedder.")}
    if not case.config.gated:
        expected |= {n for n in case.external if "norm" in n and n.endswith(".weight")}
    assert kept == (set() if case.entry.dtype == "fp32" else expected)


def _heavy(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type in ("MatMul", "Conv", "Attention", "Gemm")]


def test_the_contract_is_what_the_file_declares(case: Case) -> None:
    contract = case.bundle.contract(case.graph)
    for specs, values in ((contract.inputs, case.model.graph.input), (contract.outputs, case.model.graph.output)):
        assert [v.name for v in values] == [s.name for s in specs]
        for spec, value in zip(specs, values, strict=True):
            kind = case.entry.dtype if spec.dtype == "graph" else spec.dtype
            assert value.type.tensor_type.elem_type == ELEMENT_TYPES[kind], value.name
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert dims == [d if d in contract.profile else contract.sizes.get(d, d) for d in spec.dims], value.name


@pytest.mark.parametrize("family", ["edge", "nano"])
def test_variants_of_one_type_share_their_files(family: str, full_variants: dict[str, Path]) -> None:
    bundle = Bundle.open(full_variants[family])
    listed = set()
    for graph in GRAPH_NAMES:
        entry = bundle.graph(graph)
        weights = {name: set(variant.weights) for name, variant in entry.variants.items()}
        assert weights["primitive-fp16"] == weights["fused-fp16"]
        kept = f"graphs/weights/{graph}.kept-fp32.data"
        for name, files in weights.items():
            assert files - {kept} == {f"graphs/weights/{graph}.{entry.variants[name].dtype}.data"}
        listed |= set().union(*weights.values())
    assert listed == {p.relative_to(bundle.root).as_posix() for p in (bundle.root / "graphs/weights").iterdir()}


@pytest.mark.parametrize("family", ["edge", "nano", "super"])
def test_a_second_variant_of_a_type_adds_no_bytes(family: str, checkpoints: dict[str, Path]) -> None:
    checkpoint, shapes = Checkpoint.open(checkpoints[family]), SHAPE_SETS["droid"]
    one = make_plan(checkpoint, shapes, [VARIANTS["primitive-fp16"]]).weight_bytes
    both = make_plan(checkpoint, shapes, [VARIANTS["primitive-fp16"], VARIANTS["fused-fp16"]]).weight_bytes
    assert one == both


@pytest.mark.parametrize("family", ["edge", "nano"])
@pytest.mark.parametrize("graph", GRAPH_NAMES)
def test_bf16_is_refused_on_the_cpu_with_the_reason(family: str, graph: str, full_variants: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="can't run variant 'fused-bf16'") as caught:
        open_engine(Bundle.open(full_variants[family]), graph, variant="fused-bf16")
    assert "no bf16 kernels" in caught.value.why and "leave the variant out" in caught.value.fix
