"""`motedge plan` on a real tiny bundle: what it says of memory, time and rules, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest
from quant_scene import export_policy

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.cli.main import main
from motedge.errors import BundleError, UsageError
from motedge.quant.recipe import builtin_recipes
from motedge.targets.catalog import Figure, Target, load_target, targets
from motedge.targets.plan import Plan, PlanOptions, make_plan
from motedge.targets.plan.figures import GraphFigures
from motedge.targets.plan.make import plan_all
from motedge.targets.plan.page import render_page
from motedge.targets.plan.read import recorded_plan

ORIN, THOR, ADA = "jetson-orin-nano-8gb", "jetson-agx-thor-t5000", "rtx-4090"
GRAPHS = {"und_prefill", "gen_step", "vae_encoder"}


@pytest.fixture(scope="module")
def root(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Edge with small pictures, in the one variant that newer libraries take."""
    out = tmp_path_factory.mktemp("plan") / "bundle"
    return export_policy(checkpoints["edge"], out, "fused-bf16").root


@pytest.fixture(scope="module")
def figures(root: Path) -> GraphFigures:
    return GraphFigures(Bundle.open(root))


def with_memory(name: str, available_gb: float) -> Target:
    """A device of the catalogue that has other memory."""
    return dataclasses.replace(load_target(name), available_gb=Figure(available_gb, "derived", "of this test"))


def planned(figures: GraphFigures, target: Target, **options: object) -> Plan:
    made = PlanOptions(**options)  # type: ignore[arg-type]
    return make_plan(figures.bundle, target, options=made, figures=figures)


def test_weights_are_those_of_the_files(root: Path, figures: GraphFigures) -> None:
    for graph in planned(figures, load_target(THOR)).graphs:
        model = onnx.load(root / "graphs" / f"{graph.graph}.{graph.variant}.onnx", load_external_data=False)
        lengths = [int(e.value) for t in model.graph.initializer for e in t.external_data if e.key == "length"]
        inside = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        assert sum(lengths) <= graph.weight_bytes <= sum(lengths) + inside + 64 * len(model.graph.initializer)
        assert graph.engine_bytes > graph.weight_bytes and graph.build_peak_bytes > 1.3 * graph.weight_bytes


def test_the_bill_adds_up(figures: GraphFigures) -> None:
    memory = planned(figures, load_target(THOR)).memory
    assert memory.needed_bytes == max(sum(item.bytes for item in memory.items), memory.loading_bytes)
    kept = next(item.bytes for item in memory.items if item.name.startswith("K and V"))
    sizes = figures.bundle.contract("gen_step").sizes
    longest = figures.bundle.contract("gen_step").profile["U"][2]
    assert kept == 2 * 2 * sizes["L"] * 2 * sizes["K"] * longest * sizes["D"]
    alone = planned(figures, load_target(THOR), guidance=1.0).memory
    assert 2 * next(item.bytes for item in alone.items if item.name.startswith("K and V")) == kept


def test_a_gpu_with_its_own_memory_is_not_charged_for_the_host(figures: GraphFigures) -> None:
    memory = planned(figures, load_target(ADA)).memory
    assert memory.needed_bytes == memory.total("device") < sum(item.bytes for item in memory.items)


def test_forwards_follow_the_guidance_interval(figures: GraphFigures) -> None:
    forwards = {
        words: planned(figures, load_target(THOR), **options).tick.points[0].forwards  # type: ignore[union-attr]
        for words, options in (("policy", {}), ("alone", {"guidance": 1.0}), ("two steps", {"steps": 2}))
    }
    assert forwards == {"policy": 5, "alone": 4, "two steps": 3}


def test_a_tick_is_its_parts_and_is_held_against_the_chunk(figures: GraphFigures) -> None:
    plan = planned(figures, load_target(THOR))
    assert plan.tick is not None and plan.tick.period_s == pytest.approx(32 / 15)
    point = plan.tick.points[0]
    times = {graph.graph: graph.stage.time_s for graph in plan.graphs if graph.stage is not None}
    assert set(times) == GRAPHS | set(WEIGHTLESS_GRAPHS)
    expected = times["vae_encoder"] + 5 * times["gen_step"] + plan.tick.host_s
    assert point.tick_s == pytest.approx(expected)
    assert point.low_s <= point.tick_s <= point.high_s


@pytest.mark.parametrize(
    ("factor", "answer"), [(0.9, "no"), (1.0, "within the error"), (3.0, "yes")], ids=["late", "unsure", "early"]
)
def test_the_verdict_keeps_to_the_interval(root: Path, tmp_path: Path, factor: float, answer: str) -> None:
    """The rate at which chunks are used up is set around the predicted tick."""
    copy = Path(shutil.copytree(root, tmp_path / "bundle"))
    bundle = Bundle.open(copy)
    point = make_plan(bundle, load_target(THOR)).tick.points[0]  # type: ignore[union-attr]
    edge = {"no": point.low_s, "within the error": point.tick_s, "yes": point.high_s}[answer]
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["policy"]["fps"] = manifest["policy"]["chunk"] / (edge * factor)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert make_plan(Bundle.open(copy), load_target(THOR)).tick.points[0].in_time == answer  # type: ignore[union-attr]


def test_a_recipe_that_the_bundle_lacks_is_planned(figures: GraphFigures) -> None:
    plain = planned(figures, load_target(ORIN))
    four = planned(figures, load_target(ORIN), recipe="int4-awq")
    for before, after in zip(plain.graphs, four.graphs):
        quantized = after.graph in ("und_prefill", "gen_step")
        assert (after.applied_recipe == "int4-awq") == quantized
        assert (after.weight_bytes < before.weight_bytes) == quantized
        # Weight-only: the arithmetic stays
        assert after.flops == pytest.approx(before.flops, rel=0.05)


def test_a_plan_survives_json(figures: GraphFigures) -> None:
    plan = planned(figures, with_memory(ORIN, 0.5), recipe="int4-awq")
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.advice


@pytest.mark.parametrize("breakage", ["schema", "missing", "extra"])
def test_another_json_is_no_plan(figures: GraphFigures, breakage: str) -> None:
    raw = planned(figures, load_target(THOR)).to_dict()
    if breakage == "schema":
        raw["schema"] = "motedge.plan/v9"
    elif breakage == "missing":
        del raw["memory"]["items"]
    else:
        raw["colour"] = "blue"
    with pytest.raises(UsageError, match="plan"):
        Plan.from_dict(raw)


def test_the_plan_beside_engines_is_found(root: Path, figures: GraphFigures, tmp_path: Path) -> None:
    bundle = Bundle.open(Path(shutil.copytree(root, tmp_path / "bundle")))
    assert recorded_plan(bundle, load_target(ORIN)) is None
    plan = planned(figures, load_target(ORIN))
    for name in (ORIN, THOR):
        (bundle.root / "engines" / name).mkdir(parents=True)
        (bundle.root / "engines" / name / "plan.json").write_text(json.dumps(plan.to_dict()))
    assert recorded_plan(bundle, load_target(ORIN)) == plan
    with pytest.raises(BundleError, match="something else"):
        recorded_plan(bundle, load_target(THOR))
    (bundle.root / "engines" / ORIN / "plan.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        recorded_plan(bundle, load_target(ORIN))


def test_what_does_not_fit_is_refused_and_advice_is_true(figures: GraphFigures) -> None:
    """A card between the needs of 8-bit weights and of bf16 ones; each recipe that is named must fit when asked for."""
    whole = planned(figures, load_target(ADA)).memory.needed_bytes
    packed = planned(figures, load_target(ADA), recipe="w8a16").memory.needed_bytes
    assert packed < whole
    target = with_memory(ADA, (whole + packed) / 2e9)
    plan = planned(figures, target)
    assert plan.memory.fits is False and not plan.passed
    named = [name for name in builtin_recipes() if any(e.change.startswith(f"recipe {name} ") for e in plan.advice)]
    assert named
    for name in named:
        assert planned(figures, target, recipe=name).passed
    # Its weights can wait in the host's memory, and another card takes them all
    assert any("weight-streaming" in entry.change for entry in plan.advice)
    assert any("a larger device" in entry.change for entry in plan.advice)


def test_a_build_that_does_not_fit_refuses_too(figures: GraphFigures) -> None:
    """On a Jetson the engines are built where they run, in the same memory."""
    plan = planned(figures, load_target(ORIN))
    assert plan.build.peak_bytes > plan.memory.needed_bytes and plan.passed
    short = planned(figures, with_memory(ORIN, (plan.build.peak_bytes + plan.memory.needed_bytes) / 2e9))
    assert short.memory.fits and short.build.fits is False and not short.passed
    assert any("a larger device" in entry.change for entry in short.advice)


def test_a_recipe_that_the_gpu_lacks_is_not_legal(figures: GraphFigures) -> None:
    plan = planned(figures, load_target(ORIN), recipe="fp8")
    assert not plan.legal and not plan.passed
    assert any("8.9" in reason.what for graph in plan.graphs for reason in graph.reasons)


def test_a_dialect_that_the_bundle_lacks_is_planned_from_its_sister(figures: GraphFigures) -> None:
    """JetPack 6.2 takes graphs of the primitive dialect alone; the weights are those of the fused one."""
    newest, older = planned(figures, load_target(ORIN)), planned(figures, load_target(ORIN), tensorrt="10.3")
    assert older.legal and {graph.dialect for graph in older.graphs} == {"primitive"}
    assert [g.weight_bytes for g in older.graphs] == [g.weight_bytes for g in newest.graphs]
    said = {caution.what + caution.source for graph in older.graphs for caution in graph.cautions}
    assert any("lacks primitive-fp16" in words and "motedge export" in words for words in said)
    assert any("JetPack 6.2" in note and "primitive-fp16" in note for note in newest.notes)
    # TensorRT 10.3 holds the plan in memory as a whole while it builds
    assert older.build.peak_bytes > newest.build.peak_bytes


def test_all_targets_side_by_side(figures: GraphFigures, root: Path, tmp_path: Path) -> None:
    entries = plan_all(figures.bundle, PlanOptions())
    assert [entry.target.id for entry in entries] == list(targets())
    for entry in entries:
        assert (entry.plan is None) == bool(entry.reason)
    assert next(entry for entry in entries if entry.target.id == THOR).plan is not None
    # Nothing but fused bf16 in this bundle, and a CPU takes neither
    assert next(entry for entry in entries if entry.target.id == "cpu").plan is None
    page = render_page(entries)
    assert page.startswith("<!doctype html>") and "prefers-color-scheme: dark" in page and page.count("<svg") >= 2
    assert "<script" not in page and "http:" not in page.replace("http://www.w3.org", "") and "src=" not in page
    assert all(name in page for name in targets())


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_exit_codes_and_words(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, root, "--target", THOR, "--page", tmp_path / "plan.html")
    assert code == 0 and "fits" in out and "2.133 s" in out
    assert (tmp_path / "plan.html").read_text().count("<svg") >= 1
    code, out, _ = run(capsys, root, "--target", ORIN, "--recipe", "fp8")
    assert code == 1 and "8.9" in out
    code, out, _ = run(capsys, root, "--all")
    assert code == 0 and all(name in out for name in targets())
    code, out, _ = run(capsys, root, "--target", THOR, "--json")
    assert code == 0 and Plan.from_dict(json.loads(out)).target == THOR


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "jetson-orin-nano"), "jetson-orin-nano-"),
        (("--target", THOR, "--recipe", "fp9"), "fp8"),
        (("--target", THOR, "--variant", "fused-fp32"), "fused-bf16"),
        (("--target", "cpu"), "onnxruntime"),
        (("--target", THOR, "--und-len", "100000"), "another range of"),
        (("--target", THOR, "--frames", "100"), "another range of T"),
        (("--target", THOR, "--steps", "0"), "steps"),
    ],
)
def test_bad_requests(root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(capsys, root, *arguments)
    assert code == 2 and words in err and not out


def test_a_damaged_graph(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "bundle"))
    file = next((copy / "graphs").glob("gen_step*.onnx"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    code, _, err = run(capsys, copy, "--target", THOR)
    assert code == 2 and file.name in err
    # As long as it should be, and no ONNX model
    file.write_bytes(b"\xff" * len(content))
    code, _, err = run(capsys, copy, "--target", THOR)
    assert code == 2 and file.name in err
    assert run(capsys, copy, "--all")[0] == 2


def test_without_onnx(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run(capsys, root, "--target", THOR)
    assert code == 3 and "motedge[export]" in err
