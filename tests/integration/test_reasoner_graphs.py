"""The reasoner's graphs on onnxruntime against transformers' cosmos3_edge and cosmos3_omni, fp32, random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx_reference import DTYPES as DTYPES_OF
from onnx_reference import UNIT_ROUNDOFF, LayerNormalization, RMSNormalization
from tiny import MINI

from motedge.checkpoint.reader import Checkpoint
from motedge.export.modules.layers import Precision
from motedge.export.modules.und import UndPrefill
from motedge.export.onnx_file import attach_weights, check_model, write_model
from motedge.export.opset17 import lower_to_opset17
from motedge.export.reasoner_graphs import REASONER_EXTRAS
from motedge.export.tables import inv_freq
from motedge.export.variants import REFERENCE, VariantSpec, find_variant
from motedge.export.weights import DTYPES, load_module, place_weights, plan_weights, write_weights
from motedge.runtime.rope import RotaryTable

oracle = pytest.importorskip("transformers_oracle")

TOLERANCE = 1e-5
# As in test_sixteen_bit.py
ROUNDOFFS = 5
SLOTS, DECODED = 96, 32
PROMPT = list(range(40, 63))
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """One family: the oracle, what it said when loading, and sessions of our graphs."""

    family: str
    checkpoint: Checkpoint
    model: Any
    loading: dict[str, Any]
    sessions: dict[str, onnxruntime.InferenceSession]

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        session = self.sessions[graph]
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture(scope="module", params=("edge", "nano"))
def scene(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path_factory: Any) -> Scene:
    opened = Checkpoint.open(checkpoints[request.param])
    model, loading = oracle.load_reasoner(opened.root)
    folder = tmp_path_factory.mktemp("reasoner")
    sessions = {name: _session(opened, name, folder) for name in ("und", "vision_encoder")}
    return Scene(request.param, opened, model, loading, sessions)


def _session(checkpoint: Checkpoint, name: str, folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(_write(checkpoint, name, REFERENCE, folder), providers=["CPUExecutionProvider"])


def _write(checkpoint: Checkpoint, name: str, variant: VariantSpec, folder: Path) -> Path:
    """A graph as a file, with its weights beside it."""
    spec = next(spec for spec in REASONER_EXTRAS["reasoner"] if spec.name == name)
    ranges = spec.relu2_ranges(checkpoint, variant)
    contract, module = spec.contract_of(checkpoint, MINI), spec.empty_module(checkpoint, MINI, variant, ranges)
    slots = place_weights(name, DTYPES[variant.dtype], plan_weights(module))
    (folder / "weights").mkdir(exist_ok=True)
    for file in {slot.file for slot in slots}:
        write_weights(folder / "weights" / file, [slot for slot in slots if slot.file == file], spec.store(checkpoint))
    graph = spec.assemble(module, contract, variant)
    if variant.lowered:
        lower_to_opset17(graph)
    attach_weights(graph, slots)
    target = folder / f"{name}.{variant.id}.onnx"
    write_model(graph, target, {})
    check_model(target)
    return target


def _tokens(scene: Scene, ids: list[int]) -> np.ndarray:
    return scene.checkpoint.transformer.finite_tensor("embed_tokens.weight")[ids].float().numpy()


class Decoder:
    """The graph und with its buffer, which holds noise where no token is."""

    def __init__(self, scene: Scene) -> None:
        config = scene.checkpoint.config
        self._scene, self.length, self.rows = scene, 0, []
        self._rotary = RotaryTable(inv_freq(config).numpy(), config.to_dict())
        shape = (config.num_hidden_layers, 2, config.num_key_value_heads, SLOTS, config.head_dim)
        self._buffer = np.random.RandomState(1).standard_normal(shape).astype(np.float32) * 100
        self._layers = 0 if scene.family == "edge" else 3

    def step(self, embeddings: np.ndarray, positions: np.ndarray, deepstack: np.ndarray | None = None) -> np.ndarray:
        """Logits after new tokens [S, H] at positions [3, S]; their rows are kept."""
        outputs = self._scene.run("und", self.inputs(embeddings, positions, deepstack))
        count = len(embeddings)
        self._buffer[:, :, :, self.length : self.length + count] = outputs["kv"]
        self.length += count
        self.rows.append(outputs)
        return outputs["logits"]

    def inputs(self, embeddings: np.ndarray, positions: np.ndarray, deepstack: np.ndarray | None = None) -> Arrays:
        """Inputs of the graph for new tokens."""
        cos, sin = self._rotary.table(positions.astype(np.float32))
        inputs = {"embeddings": embeddings, "cos": cos, "sin": sin, "past_kv": self._buffer}
        inputs["past_length"] = np.array([self.length], np.float32)
        if self._layers:
            none = np.zeros((self._layers, *embeddings.shape), np.float32)
            inputs["deepstack"] = none if deepstack is None else deepstack
        return inputs

    def text(self, ids: list[int], start: int | None = None) -> np.ndarray:
        """Logits after text tokens, which stand at `start` and after it."""
        places = np.arange(len(ids)) + (self.length if start is None else start)
        return self.step(_tokens(self._scene, ids), np.stack([places] * 3))

    def greedy(self, logits: np.ndarray, count: int, start: int) -> tuple[list[int], list[np.ndarray]]:
        """`count` tokens and the logits that each was taken from; the first stands at position `start`."""
        chosen, seen = [], []
        for index in range(count):
            seen.append(logits)
            chosen.append(int(np.argmax(logits)))
            logits = self.text(chosen[-1:], start + index)
        return chosen, seen


def _oracle_tokens(scene: Scene, **inputs: torch.Tensor) -> tuple[list[int], np.ndarray]:
    """Greedy tokens by transformers, and the logits before each."""
    options = {"max_new_tokens": DECODED, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    with torch.no_grad():
        made = scene.model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    count = inputs["input_ids"].shape[1]
    return made.sequences[0, count:].tolist(), torch.cat(made.logits).numpy()


def test_checkpoint_loads_whole(scene: Scene) -> None:
    assert not any(scene.loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loaded = scene.model.lm_head.weight.detach()
    assert torch.equal(loaded, scene.checkpoint.transformer.finite_tensor("lm_head.weight").float())


# One image, several frames, an image of a single token, another aspect than the position table's
@pytest.mark.parametrize("grid", [(1, 8, 12), (3, 4, 6), (1, 2, 2), (2, 20, 34)])
def test_visual_tokens(scene: Scene, grid: tuple[int, int, int]) -> None:
    inputs = oracle.vision_inputs(scene.model, grid, seed=3)
    expected = oracle.visual_tokens(scene.model, grid, inputs["patches"])
    # A frame at a time: none sees another
    frames = [scene.run("vision_encoder", {**inputs, "patches": frame[None]}) for frame in inputs["patches"]]
    assert frames[0].keys() == expected.keys()
    for name, value in expected.items():
        got = np.concatenate([frame[name] for frame in frames], axis=-3)
        np.testing.assert_allclose(got, value, rtol=0, atol=TOLERANCE)


@pytest.mark.capability(mode="reason_text", family="{scene}", backend="onnxruntime", proof="parity")
def test_text(scene: Scene) -> None:
    decoder = Decoder(scene)
    tokens, logits = decoder.greedy(decoder.text(PROMPT), DECODED, len(PROMPT))
    expected, oracle_logits = _oracle_tokens(scene, input_ids=torch.tensor([PROMPT]))
    assert tokens == expected
    np.testing.assert_allclose(np.stack(logits), oracle_logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pieces", [(1, 22), (22, 1), (8, 8, 7)])
def test_a_prompt_in_pieces(scene: Scene, pieces: tuple[int, ...]) -> None:
    whole, split = Decoder(scene), Decoder(scene)
    expected = whole.text(PROMPT)
    parts = np.split(np.array(PROMPT), np.cumsum(pieces)[:-1])
    got = [split.text(part.tolist()) for part in parts][-1]
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    for name in set(whole.rows[0]) - {"logits"}:
        joined = np.concatenate([rows[name] for rows in split.rows], axis=-2)
        np.testing.assert_allclose(joined, whole.rows[0][name], rtol=0, atol=TOLERANCE)


def test_rows_for_the_generator(scene: Scene) -> None:
    """What the generator attends to is what und_prefill gives it."""
    config = scene.checkpoint.config
    with torch.device("meta"):
        prefill = UndPrefill(config, Precision("primitive", torch.float32))
    load_module(prefill, scene.checkpoint.transformer)
    cos, sin = RotaryTable(inv_freq(config).numpy(), config.to_dict()).text(len(PROMPT))
    with torch.inference_mode():
        expected = prefill(*(torch.from_numpy(value) for value in (_tokens(scene, PROMPT), cos, sin))).numpy()
    decoder = Decoder(scene)
    decoder.text(PROMPT[:10])
    decoder.text(PROMPT[10:])
    rows = {
        name: np.concatenate([part[name] for part in decoder.rows], axis=-2)
        for name in decoder.rows[0]
        if name != "logits"
    }
    key = rows["k_for_gen"] if scene.family == "edge" else rows["kv"][:, 0]
    np.testing.assert_allclose(key, expected[:, 0], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(rows["kv"][:, 1], expected[:, 1], rtol=0, atol=TOLERANCE)
    # Edge's own key is another one
    assert (np.abs(rows["kv"][:, 0] - expected[:, 0]).max() > 0.1) == (scene.family == "edge")


@pytest.mark.capability(mode="reason_image", family="{scene}", backend="onnxruntime", proof="parity")
def test_an_image_in_the_prompt(scene: Scene) -> None:
    grid = (1, 6, 8)
    inputs = oracle.vision_inputs(scene.model, grid, seed=5)
    config, seen = scene.model.config, scene.run("vision_encoder", inputs)
    count = seen["tokens"].shape[1]
    before, after = [*PROMPT[:4], config.vision_start_token_id], [config.vision_end_token_id, *PROMPT[4:]]
    ids = torch.tensor([[*before, *[config.image_token_id] * count, *after]])
    kinds = (ids == config.image_token_id).int()
    grids = torch.tensor([grid])
    positions, _ = scene.model.model.get_rope_index(ids, kinds, image_grid_thw=grids)
    places = positions[:, 0].numpy()
    expected, oracle_logits = _oracle_tokens(
        scene,
        input_ids=ids,
        mm_token_type_ids=kinds,
        pixel_values=torch.from_numpy(inputs["patches"]).flatten(0, 2),
        image_grid_thw=grids,
    )
    embeddings = _tokens(scene, ids[0].tolist())
    visual = kinds[0].bool().numpy()
    embeddings[visual] = seen["tokens"].reshape(count, -1)
    deepstack = None
    if "deepstack" in seen:
        deepstack = np.zeros((len(seen["deepstack"]), *embeddings.shape), np.float32)
        deepstack[:, visual] = seen["deepstack"].reshape(len(deepstack), count, -1)
    decoder = Decoder(scene)
    tokens, logits = decoder.greedy(decoder.step(embeddings, places, deepstack), DECODED, int(places.max()) + 1)
    assert tokens == expected
    np.testing.assert_allclose(np.stack(logits), oracle_logits, rtol=0, atol=TOLERANCE)


def _sample(scene: Scene, graph: str) -> Arrays:
    """Inputs of a graph: an image, or the end of a prompt over the rows of its beginning."""
    if graph == "vision_encoder":
        return oracle.vision_inputs(scene.model, (1, 4, 6), seed=3)
    decoder = Decoder(scene)
    decoder.text(PROMPT[:10])
    return decoder.inputs(_tokens(scene, PROMPT[10:]), np.stack([np.arange(10, len(PROMPT))] * 3))


@pytest.mark.parametrize("graph", ["und", "vision_encoder"])
@pytest.mark.parametrize("name", ["primitive-fp16", "fused-fp16", "fused-bf16"])
def test_error_of_sixteen_bits_is_that_of_the_type(scene: Scene, graph: str, name: str, tmp_path: Path) -> None:
    variant, inputs = find_variant(name), _sample(scene, graph)
    assert variant is not None
    contract = next(s for s in REASONER_EXTRAS["reasoner"] if s.name == graph).contract_of(scene.checkpoint, MINI)
    path, dtype = _write(scene.checkpoint, graph, variant, tmp_path), DTYPES_OF[variant.dtype]
    given = {k: v.astype(dtype if contract.tensor(k).dtype == "graph" else np.float32) for k, v in inputs.items()}
    outputs = ReferenceEvaluator(str(path), new_ops=[RMSNormalization, LayerNormalization]).run(None, given)
    for spec, value in zip(contract.outputs, outputs, strict=True):
        expected = scene.run(graph, inputs)[spec.name]
        error = np.linalg.norm(value.astype(np.float32) - expected) / np.linalg.norm(expected)
        assert error <= ROUNDOFFS * UNIT_ROUNDOFF[variant.dtype], spec.name


@pytest.mark.parametrize("graph", ["und", "vision_encoder"])
def test_opset_17_has_the_same_values(scene: Scene, graph: str, tmp_path: Path) -> None:
    variant, inputs = find_variant("primitive17-fp32"), _sample(scene, graph)
    assert variant is not None
    path = _write(scene.checkpoint, graph, variant, tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for value, expected in zip(session.run(None, inputs), scene.run(graph, inputs).values(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE)
