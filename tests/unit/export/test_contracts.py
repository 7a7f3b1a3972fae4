"""Contracts: letters, profiles, and the JSON round trip; variants and their names."""

from __future__ import annotations

import json

import pytest

from motedge.bundle import Contract
from motedge.bundle.dims import LEGEND
from motedge.checkpoint.config import ModelConfig
from motedge.errors import UsageError
from motedge.export.contracts import CONTRACTS
from motedge.export.shapes import SHAPE_SETS
from motedge.export.variants import VARIANTS, parse_variants

EDGE = ModelConfig(2048, 9216, 28, 16, 8, 131072, "relu2", 1e-5, 1e8, False, True)


@pytest.mark.parametrize("shapes", SHAPE_SETS.values(), ids=SHAPE_SETS)
@pytest.mark.parametrize("graph", CONTRACTS)
def test_every_letter_is_in_the_legend_and_has_a_size(graph: str, shapes: object) -> None:
    contract = CONTRACTS[graph](EDGE, shapes)
    for spec in (*contract.inputs, *contract.outputs):
        assert all(isinstance(d, int) or d in LEGEND for d in spec.dims)
        assert spec.shape(contract.optimum())
        assert spec.meaning


@pytest.mark.parametrize("graph", CONTRACTS)
def test_round_trip_through_json(graph: str) -> None:
    contract = CONTRACTS[graph](EDGE, SHAPE_SETS["droid"])
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_the_droid_step_has_the_published_sizes() -> None:
    contract = CONTRACTS["gen_step"](EDGE, SHAPE_SETS["droid"])
    sizes = contract.optimum()
    assert contract.tensor("cos").shape(sizes) == (3093, 64)
    assert contract.tensor("vision").shape(sizes) == (48, 9, 33, 40)
    assert contract.tensor("und_kv").shape({**sizes, "U": 158}) == (28, 2, 8, 158, 128)


def test_variants_by_name() -> None:
    assert [v.id for v in parse_variants("fused-bf16, primitive-fp32,fused-bf16")] == ["fused-bf16", "primitive-fp32"]
    assert parse_variants("all") == list(VARIANTS.values())
    with pytest.raises(UsageError, match="did you mean 'fused-bf16'"):
        parse_variants("fused-bf61")
    with pytest.raises(UsageError, match="no variant given"):
        parse_variants(" , ")
