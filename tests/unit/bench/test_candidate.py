"""Which recipes of which bundles are held against which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench_scene import made_bundle

from motedge.bench.candidate import find_candidates
from motedge.errors import BundleError, UsageError


def names(*bundles: Path, **choice: Any) -> list[str]:
    return [candidate.name for candidate in find_candidates(list(bundles), **choice)]


def test_the_reference_first_whatever_the_order(tmp_path: Path) -> None:
    plain, quantized = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "quantized", ["fp8", "int4-awq"])
    for order in ((plain, quantized), (quantized, plain)):
        found = find_candidates(list(order))
        assert [candidate.name for candidate in found] == ["unquantized", "fp8", "int4-awq"]
        assert [candidate.bundle for candidate in found] == [plain, quantized, quantized]
    assert names(plain, plain, tmp_path / "plain" / ".." / "plain") == ["unquantized"]


def test_choice(tmp_path: Path) -> None:
    plain, quantized = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "quantized", ["fp8", "int4-awq"])
    assert names(plain, quantized, recipes=["int4-awq"]) == ["unquantized", "int4-awq"]
    assert names(plain, quantized, recipes=["unquantized"]) == ["unquantized"]
    variants = ["primitive-fp32", "fused-fp16"]
    assert names(plain, quantized, recipes=["fp8"], variants=variants) == [
        "unquantized primitive-fp32",
        "unquantized fused-fp16",
        "fp8 primitive-fp32",
        "fp8 fused-fp16",
    ]


def test_the_same_recipe_in_two_bundles_is_told_apart(tmp_path: Path) -> None:
    plain, first, second = (
        made_bundle(tmp_path / name, recipes) for name, recipes in (("plain", [None]), ("a", ["fp8"]), ("b", ["fp8"]))
    )
    assert names(plain, first, second) == ["unquantized", "fp8 of a", "fp8 of b"]
    with pytest.raises(UsageError, match="another name"):
        names(plain, first, made_bundle(tmp_path / "other" / "a", ["fp8"]))


def test_another_reference(tmp_path: Path) -> None:
    first, second = made_bundle(tmp_path / "first", [None]), made_bundle(tmp_path / "second", [None])
    assert names(first, second) == ["unquantized of first", "unquantized of second"]
    assert names(first, second, reference=second) == ["unquantized of second", "unquantized of first"]


def test_what_is_refused(tmp_path: Path) -> None:
    plain, quantized = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "quantized", ["fp8"])
    with pytest.raises(UsageError, match="no unquantized bundle to judge by"):
        names(quantized)
    with pytest.raises(UsageError, match="no unquantized bundle to judge by"):
        names(plain, reference=quantized)
    with pytest.raises(UsageError, match="did you mean 'fp8'"):
        names(plain, quantized, recipes=["fp9"])
    with pytest.raises(BundleError, match="no bundle at"):
        names(plain, tmp_path / "none")
    for change, what in (
        ({"model": {"family": "nano"}}, "model"),
        ({"shape_set": {"name": "droid"}}, "shape set"),
        ({"policy": {"embodiment": "av"}}, "embodiment"),
    ):
        with pytest.raises(UsageError, match=f"not of the same {what}"):
            names(plain, made_bundle(tmp_path / what, ["fp8"], **change))
