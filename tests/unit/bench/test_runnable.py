"""Candidates that have nothing to run: known from manifests, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_scene import made_bundle

from motedge.bench.candidate import find_candidates
from motedge.bench.runnable import not_runnable
from motedge.errors import UsageError


def test_all_can_be_run(tmp_path: Path) -> None:
    bundles = [made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "quantized", ["fp8"])]
    for variants in (None, ["primitive-fp32"]):
        assert not_runnable(find_candidates(bundles, variants=variants), "onnxruntime") == {}


def test_a_candidate_without_engines_fails_alone(tmp_path: Path) -> None:
    plain, half = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "half", ["fp8"], "fused-bf16")
    found = not_runnable(find_candidates([plain, half]), "onnxruntime")
    assert list(found) == ["fp8"] and "no bf16 kernels" in str(found["fp8"])


def test_a_variant_that_others_have_fails_where_it_lacks(tmp_path: Path) -> None:
    plain, half = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "half", ["fp8"], "fused-fp16")
    found = not_runnable(find_candidates([plain, half], variants=["primitive-fp32", "fused-fp16"]), "onnxruntime")
    assert list(found) == ["unquantized fused-fp16", "fp8 primitive-fp32"]


def test_a_variant_that_nobody_has_is_refused(tmp_path: Path) -> None:
    plain = made_bundle(tmp_path / "plain", [None])
    for variants in (["primitive-fp31"], ["primitive-fp32", "primitive-fp31"]):
        with pytest.raises(UsageError, match="no bundle has variant 'primitive-fp31'") as caught:
            not_runnable(find_candidates([plain], variants=variants), "onnxruntime")
        assert "did you mean 'primitive-fp32'" in str(caught.value)


def test_a_reference_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    half = made_bundle(tmp_path / "half", [None, "fp8"], "fused-bf16")
    with pytest.raises(UsageError, match="the reference, unquantized, can't be run") as caught:
        not_runnable(find_candidates([half]), "onnxruntime")
    assert "fused-bf16" in str(caught.value) and "no bf16 kernels" in str(caught.value)
