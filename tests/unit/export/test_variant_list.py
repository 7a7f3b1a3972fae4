"""Parsing --variants."""

from __future__ import annotations

import pytest

from motedge.errors import UsageError
from motedge.export.variants import DEFAULT_VARIANTS, REFERENCE, VARIANTS, parse_variants


def ids(text: str) -> list[str]:
    return [spec.id for spec in parse_variants(text)]


def test_all_and_lists() -> None:
    assert ids("all") == ["primitive-fp32", "primitive-fp16", "fused-fp16", "fused-bf16"] == list(VARIANTS)
    assert ids("fused-bf16, primitive-fp32") == ["fused-bf16", "primitive-fp32"]
    assert ids("fused-fp16,fused-fp16,") == ["fused-fp16"]
    assert ids(",".join(DEFAULT_VARIANTS)) == [REFERENCE.id]


def test_the_opset_follows_from_the_dialect() -> None:
    assert {spec.id: spec.opset for spec in VARIANTS.values()} == {
        "primitive-fp32": 20,
        "primitive-fp16": 20,
        "fused-fp16": 23,
        "fused-bf16": 23,
    }


@pytest.mark.parametrize(("text", "near"), [("fused-fp6", "fused-fp16"), ("primitive-f32", "primitive-fp32")])
def test_an_unknown_variant_offers_the_closest(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"unknown variant '{text}'") as caught:
        parse_variants(f"primitive-fp32,{text}")
    assert f"did you mean '{near}'" in caught.value.fix and "or all" in caught.value.fix


@pytest.mark.parametrize("text", ["fused-fp32", "primitive-bf16", "ALL"])
def test_what_is_left_out_on_purpose_is_unknown(text: str) -> None:
    with pytest.raises(UsageError, match="unknown variant"):
        parse_variants(text)


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_none_given(text: str) -> None:
    with pytest.raises(UsageError, match="no variant given") as caught:
        parse_variants(text)
    assert "fused-bf16" in caught.value.fix
