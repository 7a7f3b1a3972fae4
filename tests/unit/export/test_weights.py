"""Where weights lie and in which layout, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from damage import edit_weights, transformer_file
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, MINI

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import CheckpointError, ExportError
from motedge.export import weights
from motedge.export.graphs import GRAPHS
from motedge.export.variants import REFERENCE, VARIANTS
from motedge.export.weights import (
    DTYPES,
    LAYOUTS,
    LINE,
    PAGE,
    WeightSpec,
    load_weight,
    place_weights,
    plan_weights,
    write_weights,
)

KEY = "layers.1.self_attn.add_q_proj.weight"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: make_checkpoint(folder / name, name, "policy-droid", "tiny", seed=7) for name in FAMILIES}


def spec(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, kept: bool = False) -> WeightSpec:
    return WeightSpec(name, shape, dtype, "as_is", kept)


def test_layouts_by_hand() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(LAYOUTS["transposed"](matrix), torch.tensor([[0.0, 3], [1, 4], [2, 5]]))
    taps = torch.arange(2 * 3 * 3 * 4.0).reshape(2, 3, 3, 2, 2)
    assert torch.equal(LAYOUTS["last_tap"](taps), taps[:, :, 2])
    quant = torch.arange(16.0).reshape(4, 4, 1, 1, 1)
    assert torch.equal(LAYOUTS["mean_half"](quant), quant[:2, :, 0])
    assert torch.equal(LAYOUTS["mean_half"](torch.arange(4.0)), torch.tensor([0.0, 1]))


@given(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=30))
def test_weights_do_not_overlap_and_large_ones_start_on_a_page(sizes: list[tuple[int, bool]]) -> None:
    specs = [spec(f"w{i}", (size,), kept=kept) for i, (size, kept) in enumerate(sizes)]
    slots = place_weights("gen_step", torch.float32, specs)
    assert [slot.spec for slot in slots] == specs
    for kept, file in ((True, "gen_step.kept-fp32.data"), (False, "gen_step.fp32.data")):
        mine = sorted((s for s in slots if s.spec.kept is kept), key=lambda s: s.offset)
        assert all(slot.file == file for slot in mine)
        assert all(a.offset + a.spec.bytes <= b.offset for a, b in zip(mine, mine[1:], strict=False))
        assert all(slot.offset % (PAGE if slot.spec.bytes >= PAGE else LINE) == 0 for slot in mine)
        waste = max((s.offset + s.spec.bytes for s in mine), default=0) - sum(s.spec.bytes for s in mine)
        assert waste <= PAGE * len(mine)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_module_is_filled_with_the_checkpoints_values(family: str, graph: str, roots: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(roots[family])
    module = GRAPHS[graph].module(checkpoint, MINI, REFERENCE)
    assert not module.training
    assert all(not p.is_meta and p.is_contiguous() and not p.requires_grad for p in module.parameters())
    store = GRAPHS[graph].store(checkpoint)
    for weight in plan_weights(module):
        assert weight.name in store and weight.dtype is torch.float32


@pytest.mark.parametrize("block", [weights.BLOCK, 5000])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_a_file_holds_every_weight_at_its_place(
    dtype: str, block: int, roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, or in blocks of rows."""
    monkeypatch.setattr(weights, "BLOCK", block)
    checkpoint = Checkpoint.open(roots["edge"])
    variant = next(v for v in VARIANTS.values() if v.dtype == dtype)
    module = GRAPHS["gen_step"].empty_module(checkpoint, MINI, variant)
    slots = place_weights("gen_step", DTYPES[dtype], plan_weights(module))
    mine = [slot for slot in slots if not slot.spec.kept]
    steps: list[int] = []
    digest, size = write_weights(tmp_path / "w.data", reversed(mine), checkpoint.transformer, steps.append)
    data = (tmp_path / "w.data").read_bytes()
    assert (digest, size, sum(steps)) == (hashlib.sha256(data).hexdigest(), len(data), len(data))
    for slot in mine:
        part = torch.frombuffer(bytearray(data[slot.offset : slot.offset + slot.spec.bytes]), dtype=slot.spec.dtype)
        expected = LAYOUTS[slot.spec.layout](checkpoint.transformer.tensor(slot.spec.name)).to(slot.spec.dtype)
        assert torch.equal(part.reshape(slot.spec.shape), expected.reshape(slot.spec.shape)), slot.spec.name


def test_what_does_not_fit_is_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    store = Checkpoint.open(roots["edge"]).transformer
    with pytest.raises(ExportError, match=f"{KEY} does not fit the graph"):
        load_weight(store, spec(KEY, (3, 3)))
    with pytest.raises(CheckpointError, match=r"has no tensor 'layers.9"):
        load_weight(store, spec("layers.9.self_attn.add_q_proj.weight", (3, 3)))


@pytest.mark.parametrize(("value", "fits"), [(65504.0, True), (65519.0, True), (65536.0, False), (-1e6, False)])
def test_the_range_of_fp16(value: float, fits: bool, roots: dict[str, Path], tmp_path: Path) -> None:
    """An fp32 checkpoint, so that the values are exact: up to 65519 fp16 rounds to its largest number."""
    root = make_checkpoint(tmp_path / "edge", "edge", "policy-droid", "tiny", seed=7)

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[KEY] = tensors[KEY].float()
        tensors[KEY][0, 0] = value

    edit_weights(transformer_file(root), edit)
    store = Checkpoint.open(root).transformer
    wanted = spec(KEY, store.shape(KEY), torch.float16)
    if fits:
        assert load_weight(store, wanted).abs().max() == 65504
        return
    with pytest.raises(ExportError, match=f"{KEY} does not fit fp16") as caught:
        load_weight(store, wanted)
    assert f"{abs(value):.4g}" in caught.value.got and "fused-bf16" in caught.value.fix
    for dtype in (torch.float32, torch.bfloat16):
        assert load_weight(store, spec(KEY, store.shape(KEY), dtype))[0, 0] == torch.tensor(value, dtype=dtype)
