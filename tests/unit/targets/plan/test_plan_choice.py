from __future__ import annotations

import json
from pathlib import Path

import pytest
from pack_scene import make_bundle

from motedge.bundle import Bundle
from motedge.bundle.folder import MANIFEST
from motedge.errors import BundleError, UsageError
from motedge.targets.catalog import load_target
from motedge.targets.legality import find_library
from motedge.targets.plan.choice import choose_graphs, lacking_releases

ORIN = load_target("jetson-orin-nano-8gb")
OLD, NEW = find_library(ORIN, "10.3"), find_library(ORIN)


def bundle(root: Path, *variants: str) -> Bundle:
    return Bundle.open(make_bundle(root, variants))


def test_the_dialect_of_the_library_comes_first(tmp_path: Path) -> None:
    both = bundle(tmp_path, "primitive-fp16", "fused-fp16")
    assert {graph.variant for graph in choose_graphs(both, ORIN, NEW, None, None)} == {"fused-fp16"}
    assert {graph.variant for graph in choose_graphs(both, ORIN, OLD, None, None)} == {"primitive-fp16"}


def test_a_missing_dialect_is_planned_from_the_other(tmp_path: Path) -> None:
    fused = bundle(tmp_path, "fused-fp16")
    for graph in choose_graphs(fused, ORIN, OLD, None, None):
        assert (graph.variant, graph.lacking, graph.dialect, graph.opset) == (
            "fused-fp16",
            "primitive",
            "primitive",
            20,
        )
    found = lacking_releases(choose_graphs(fused, ORIN, NEW, None, None), fused, ORIN, NEW)
    assert len(found) == 1 and "JetPack 6.2 (" in found[0] and "--variants primitive-fp16" in found[0]
    both = bundle(tmp_path / "both", "primitive-fp16", "fused-fp16")
    assert not lacking_releases(choose_graphs(both, ORIN, NEW, None, None), both, ORIN, NEW)


def test_an_explicit_variant_is_taken_or_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be built here"):
        choose_graphs(bundle(tmp_path, "fused-fp16"), ORIN, OLD, None, "fused-fp16")


def test_a_recipe_is_held_or_applied(tmp_path: Path) -> None:
    held = bundle(tmp_path, "fused-fp16", "fused-fp16-int8-sq")
    for graph in choose_graphs(held, ORIN, NEW, "int8-sq", None):
        assert (graph.variant, graph.applied) == ("fused-fp16-int8-sq", None)
    for graph in choose_graphs(held, ORIN, NEW, "int4-awq", None):
        assert graph.variant == "fused-fp16" and graph.applied is not None and graph.applied.id == "int4-awq"


def test_nothing_of_that_size(tmp_path: Path) -> None:
    cpu = load_target("cpu")
    with pytest.raises((BundleError, UsageError), match="variant"):
        choose_graphs(bundle(tmp_path, "fused-bf16"), cpu, find_library(cpu), None, None)


def test_a_graph_that_is_not_asked_for_may_lack_the_variant(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, ("fused-fp16", "fused-bf16"))
    manifest = json.loads((made / MANIFEST).read_text())
    wanted, other = list(manifest["graphs"])[:2]
    del manifest["graphs"][other]["variants"]["fused-fp16"]
    (made / MANIFEST).write_text(json.dumps(manifest))
    mixed = Bundle.open(made)
    with pytest.raises(UsageError, match=f"graph '{other}' has no variant 'fused-fp16'"):
        choose_graphs(mixed, ORIN, NEW, None, "fused-fp16")
    for target in (ORIN, load_target("cpu")):
        found = choose_graphs(mixed, target, find_library(target), None, "fused-fp16", (wanted,))
        assert [(graph.graph, graph.variant) for graph in found] == [(wanted, "fused-fp16")]
