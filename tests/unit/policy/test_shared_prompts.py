"""A reasoner's tower in place of und_prefill: taken, told, or refused."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
from policy_fakes import make_policy

from motedge.bundle import Bundle, GraphEntry, Variant
from motedge.errors import UsageError
from motedge.runtime.policy.loader import graph_opener
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.shared_prompts import check_shared, prompts_read_by

SCHEMES = {"und": {"fp8": "fp8-w8a16", "w8a16": "w8a16"}, "und_prefill": {"fp8": "fp8", "w8a16": "w8a16"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Graphs und and und_prefill, plain and in two recipes; no file of them is there."""
    graphs = {}
    for graph, schemes in SCHEMES.items():
        variants = {name: _variant(graph, name) for name in ("primitive-fp32", "primitive-fp16")}
        for recipe, scheme in schemes.items():
            name = f"primitive-fp32-{recipe}"
            variants[name] = dataclasses.replace(_variant(graph, name), recipe=recipe, facts={"sites": {scheme: 9}})
        graphs[graph] = GraphEntry(f"contracts/{graph}.json", variants)
    manifest: Any = SimpleNamespace(graphs=graphs)
    return Bundle(tmp_path, manifest)


def _variant(graph: str, name: str) -> Variant:
    return Variant(f"graphs/{graph}.{name}.onnx", (), "primitive", name.split("-")[1], 17)


def _und(bundle: Bundle, variant: str) -> Any:
    return SimpleNamespace(model=bundle.path(bundle.variant("und", variant).file))


def _choice(variant: Optional[str] = None, recipe: Optional[str] = None) -> dict[str, Any]:
    return {"backend": "onnxruntime", "variant": variant, "recipe": recipe, "options": None}


@pytest.mark.parametrize(
    ("opened", "variant", "recipe"),
    [
        ("primitive-fp32", None, None),
        ("primitive-fp32", "primitive-fp32", None),
        ("primitive-fp32-w8a16", None, "w8a16"),
    ],
)
def test_the_same_numbers_need_no_word(bundle, caplog, opened, variant, recipe) -> None:
    und = _und(bundle, opened)
    check_shared(bundle, und, _choice(variant, recipe))
    assert not caplog.records and prompts_read_by(bundle, und) == f"und {opened}"


@pytest.mark.parametrize(
    ("opened", "variant", "recipe", "expected"),
    [
        ("primitive-fp32", None, "fp8", "primitive-fp32-fp8"),
        ("primitive-fp32-fp8", None, "w8a16", "primitive-fp32-w8a16"),
        ("primitive-fp16", "primitive-fp32", None, "primitive-fp32"),
    ],
)
def test_another_variant_than_asked_for_is_refused(bundle, opened, variant, recipe, expected) -> None:
    reasoner: Any = SimpleNamespace(root=bundle.root, und_engine=_und(bundle, opened))
    with pytest.raises(UsageError, match="was opened in another variant") as refused:
        graph_opener(bundle, _choice(variant, recipe), reasoner)
    assert expected in str(refused.value) and "the same variant and recipe" in str(refused.value)


@pytest.mark.parametrize(
    ("opened", "recipe", "words"),
    [
        (
            "primitive-fp32-fp8",
            "fp8",
            ["und in primitive-fp32-fp8 (fp32, fp8-w8a16)", "primitive-fp32-fp8 (fp32, fp8)"],
        ),
        ("primitive-fp32-w8a16", None, ["(fp32, w8a16)", "und_prefill in primitive-fp32 (fp32)"]),
        ("primitive-fp16", None, ["(fp16)", "(fp32)"]),
    ],
)
def test_other_numbers_are_told(bundle, caplog, opened, recipe, words) -> None:
    with caplog.at_level(logging.WARNING):
        check_shared(bundle, _und(bundle, opened), _choice(None, recipe))
    assert len(caplog.records) == 1 and all(word in caplog.text for word in words), caplog.text


def test_an_engine_that_does_not_tell(bundle, caplog) -> None:
    und: Any = SimpleNamespace()
    check_shared(bundle, und, _choice(None, "fp8"))
    assert "not known what variant" in caplog.text and prompts_read_by(bundle, und) == "und"


def test_chunks_say_who_read_the_prompt() -> None:
    policy, _ = make_policy(notes={"prompts_read_by": "und primitive-fp32"})
    seen = Observation([0.0] * 7, 0.5, "go", image=np.zeros((540, 640, 3), np.uint8))
    assert policy.act(seen).details["prompts_read_by"] == "und primitive-fp32"
