"""The page docs/targets.md, and the cells of its tables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from motedge.errors import InternalError, UsageError
from motedge.quant.recipe import builtin_recipes
from motedge.targets.catalog import load_target, targets
from motedge.targets.matrix import make_page
from motedge.targets.matrix.cells import GRAPHS, IMPOSSIBLE, PLANNED, Cell, cells
from motedge.targets.matrix.evidence import BUILDS, MEASURED, Evidence, read_evidence

ROOT = Path(__file__).resolve().parents[4]


def _cells(proofs: list[Evidence] | None = None) -> dict[tuple[str, str, str], Cell]:
    return {(c.target, c.recipe, c.graph): c for c in cells(list(targets().values()), proofs or [])}


def _built(recipe: str, capability: float, engine: str = "tensorrt-rtx") -> Evidence:
    return Evidence(BUILDS, (), engine, (capability,), (recipe,), ("gen_step",), "tests/x.py", "tiny")


def test_the_committed_page_is_current() -> None:
    committed = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    assert committed == make_page(ROOT), "run: python scripts/targets_page.py"


def test_every_device_has_every_combination() -> None:
    assert len(_cells()) == 18 * (1 + len(builtin_recipes())) * len(GRAPHS)


def test_without_proofs_nothing_is_claimed() -> None:
    assert {cell.state for cell in _cells().values()} == {PLANNED, IMPOSSIBLE}


def test_what_is_impossible_says_why() -> None:
    found = _cells()
    orin = found["jetson-orin-nano-8gb", "fp8", "gen_step"]
    assert orin.state == IMPOSSIBLE and "compute capability 8.9" in orin.reason
    assert found["h200", "nvfp4", "gen_step"].state == IMPOSSIBLE
    assert found["rtx-4090", "nvfp4", "gen_step"].state == IMPOSSIBLE
    assert found["jetson-orin-nano-8gb", "int8-sq", "gen_step"].state == PLANNED
    # `mixed` gives the prefill FP8 alone, so a card without FP4 runs that half
    assert found["h200", "mixed", "gen_step"].state == IMPOSSIBLE
    assert found["h200", "mixed", "und_prefill"].state == PLANNED


def test_impossible_is_what_recipes_refuse() -> None:
    """The matrix and `quantize --target` must not disagree."""
    found = _cells()
    for target in targets().values():
        for recipe in builtin_recipes().values():
            refused = False
            try:
                recipe.check_target(target)
            except UsageError:
                refused = True
            # The page shows the policy's graphs; built-in recipes give those beside them no type that needs more
            states = {found[target.id, recipe.id, graph].state for graph in recipe.graphs if graph in GRAPHS}
            assert refused == (IMPOSSIBLE in states), (target.id, recipe.id)


def test_a_release_without_the_type_is_a_condition() -> None:
    cell = _cells()["drive-agx-thor", "nvfp4", "gen_step"]
    assert (cell.state, cell.reason) == (PLANNED, "from DriveOS 7.2 on")
    assert _cells()["jetson-agx-thor-t5000", "nvfp4", "gen_step"].reason == ""


def test_a_doubt_is_said_where_the_oldest_release_has_it() -> None:
    found = _cells()
    orin = found["jetson-orin-nano-8gb", "int4-awq", "gen_step"]
    assert orin.state == PLANNED and orin.reason.endswith(
        "TensorRT 10.3.0.30 documents 20: INT4 was not verified there"
    )
    assert found["jetson-agx-thor-t5000", "int4-awq", "gen_step"].reason == ""
    assert "emulated" in found["cpu", "nvfp4", "gen_step"].reason


def test_a_device_without_an_engine_library_runs_nothing() -> None:
    bare = dataclasses.replace(load_target("jetson-orin-nano-8gb"), software=())
    found = cells([bare], [])
    assert {cell.state for cell in found} == {IMPOSSIBLE}
    assert "brings an engine library" in found[0].reason


def test_proofs_raise_a_cell_and_only_their_own() -> None:
    found = _cells([_built("nvfp4", 12.0)])
    assert {key[0] for key, cell in found.items() if cell.state == BUILDS} == {"rtx-5090", "rtx-pro-6000"}
    assert all(key[1:] == ("nvfp4", "gen_step") for key, cell in found.items() if cell.state == BUILDS)


def test_a_measurement_counts_more_than_a_build() -> None:
    measured = Evidence(MEASURED, ("rtx-5090",), None, (), ("nvfp4",), ("gen_step",), "b.json", "5 steps", "12 ms")
    cell = _cells([_built("nvfp4", 12.0), measured])["rtx-5090", "nvfp4", "gen_step"]
    assert (cell.state, cell.reason) == (MEASURED, "12 ms: 5 steps (`b.json`)")


def test_a_graph_that_a_recipe_leaves_alone_is_the_exported_one() -> None:
    proof = Evidence(BUILDS, ("h200",), None, (), ("none",), ("vae_encoder",), "t.py", "tiny")
    assert _cells([proof])["h200", "fp8", "vae_encoder"].state == BUILDS


def test_a_proof_of_the_impossible_is_a_bug() -> None:
    with pytest.raises(InternalError, match=r"gen_step in fp8 on jetson-agx-orin-32gb can't be .*, but tests/x\.py"):
        _cells([_built("fp8", 8.7, "tensorrt")])


def test_the_repositorys_proofs_are_all_used() -> None:
    for proof in read_evidence(ROOT):
        used = [c for c in _cells([proof]).values() if c.state in (MEASURED, BUILDS)]
        assert used, proof


def test_every_footnote_is_defined_and_used() -> None:
    page = make_page(ROOT)
    defined = re.findall(r"^\[\^(\d+)\]: .+", page, re.MULTILINE)
    used = set(re.findall(r"(?<!^)\[\^(\d+)\](?!:)", page))
    assert defined == [str(i) for i in range(1, len(defined) + 1)]
    assert used == set(defined)


def test_every_device_is_on_the_page_with_every_figure() -> None:
    page = make_page(ROOT)
    for target in targets().values():
        assert page.count(f"| `{target.id}` |") >= 1 + len(GRAPHS)
        assert load_target(target.id).bandwidth_gbps.source in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all("None" not in row for row in rows)
