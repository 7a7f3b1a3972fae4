from __future__ import annotations

import json

import numpy as np
import pytest

from motedge.bundle import Bundle
from motedge.errors import BundleError, ContractError, UsageError
from motedge.runtime.tables import StoredTable, Tables


def _as_bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_open_maps_every_table(onnx_bundle, model) -> None:
    tables = Tables.open(Bundle.open(onnx_bundle))
    assert np.array_equal(tables.inv_freq(), model.tables["inv_freq"])
    assert tables.shape("embed_tokens") == (50, 6)
    rows = tables.embeddings(np.array([3, 3, 49], np.int64))
    assert np.array_equal(rows, model.tables["embed_tokens"][[3, 3, 49]])
    assert rows.flags.c_contiguous
    assert rows.flags.writeable


def test_nothing_is_read_at_opening(onnx_bundle) -> None:
    tables = Tables.open(Bundle.open(onnx_bundle))
    assert isinstance(tables._stored["embed_tokens"].data, np.memmap)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_each_dtype_gives_fp32_rows(tmp_path, dtype) -> None:
    values = np.float32([[1.0, -2.5, 0.0], [65280.0, 0.15625, -0.0]])
    stored = {"fp32": values, "fp16": values.astype(np.float16), "bf16": _as_bf16(values)}[dtype]
    path = tmp_path / "t.bin"
    path.write_bytes(stored.tobytes())
    table = StoredTable.map(path, dtype, [2, 3])
    for index in (slice(None), 1, np.array([1, 0])):
        rows = table.rows(index)
        assert rows.dtype == np.float32
        assert np.array_equal(rows, values[index])


def test_bf16_equals_torch(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(64, 8).to(torch.bfloat16)
    table = StoredTable(values.view(torch.uint16).numpy(), "bf16")
    assert np.array_equal(table.rows(slice(None)), values.float().numpy())


def test_embodiment_weights_are_masked(tables, model) -> None:
    weights = tables.embodiment_weights(2, 3)
    assert np.array_equal(weights.in_weight, model.tables["action_in_weight"][2])
    assert np.array_equal(weights.in_bias, model.tables["action_in_bias"][2])
    assert np.array_equal(weights.out_weight[:, :3], model.tables["action_out_weight"][2][:, :3])
    assert (weights.out_weight[:, 3:] == 0).all()
    assert (weights.out_bias[3:] == 0).all()
    # The table itself is untouched
    assert (model.tables["action_out_weight"][2][:, 3:] != 0).all()
    assert np.array_equal(tables.embodiment_weights(2, 4).out_bias, model.tables["action_out_bias"][2])


@pytest.mark.parametrize(("domain", "raw_dim"), [(-1, 3), (3, 3), (0, 0), (0, 5)])
def test_refuses_embodiments(tables, domain, raw_dim) -> None:
    with pytest.raises(UsageError):
        tables.embodiment_weights(domain, raw_dim)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([50]), "outside the vocabulary"),
        (np.array([-1]), "outside the vocabulary"),
        (np.array([[1]]), "wrong type"),
        (np.array([1.0]), "wrong type"),
    ],
)
def test_refuses_token_ids(tables, ids, message) -> None:
    with pytest.raises(ContractError, match=message):
        tables.embeddings(ids)


def test_refuses_damaged_entries(onnx_bundle) -> None:
    path = onnx_bundle / "manifest.json"
    sound = json.loads(path.read_text())

    def opened(name: str, **changes) -> None:
        raw = json.loads(json.dumps(sound))
        raw["tables"][name].update(changes)
        path.write_text(json.dumps(raw))
        Tables.open(Bundle.open(onnx_bundle))

    with pytest.raises(BundleError, match="wrong size"):
        opened("inv_freq", shape=[9])
    with pytest.raises(BundleError, match="unknown dtype"):
        opened("inv_freq", dtype="fp8")
    with pytest.raises(BundleError, match="lacks a field"):
        opened("inv_freq", shape=None)
    with pytest.raises(BundleError, match="outside its folder"):
        opened("inv_freq", file="../inv_freq.bin")
    with pytest.raises(BundleError, match="missing"):
        opened("inv_freq", file="tables/none.bin")


def test_a_missing_table_is_named(tables) -> None:
    with pytest.raises(BundleError, match="'rope'"):
        tables.shape("rope")
