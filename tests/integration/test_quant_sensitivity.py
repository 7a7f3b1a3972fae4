"""The sensitivity search on a tiny bundle: costs against other engines, every executor, interruption, targets."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hooked_calibration import hooked_calibration
from ray_stub import make_ray_stub
from tiny import MINI_POLICY

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, HostError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.recipe import GraphRecipe, Recipe, Rule, load_recipe
from motedge.quant.replay import TappedEngine, encode_prompts, open_loop, repeat_forward, run_requests
from motedge.quant.sensitivity import job
from motedge.quant.sensitivity.executors import InProcess, ProcessPool
from motedge.quant.sensitivity.job import PAGE, RECIPE, REPORT, Evidence, SearchPlan, plan_search, run_search
from motedge.quant.sensitivity.ledger import LEDGER
from motedge.quant.sensitivity.options import SearchOptions, Target
from motedge.quant.sensitivity.ray_cluster import RayCluster
from motedge.quant.sensitivity.recording import record_workload
from motedge.quant.sensitivity.search import site_tasks
from motedge.quant.sensitivity.space import open_space
from motedge.quant.sensitivity.stepwise import SteppedEngine
from motedge.quant.sensitivity.tasks import Records, SiteTask, Task, site_id
from motedge.quant.sensitivity.worker import Worker, WorkerSetup
from motedge.quant.towers import open_tower
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import EngineOptions
from motedge.runtime.policy.observation import Observation

GEN, UND = "gen_step", "und_prefill"
OPTIONS = SearchOptions(front=2, target=Target(max_error=0.05))


def recipe(scheme: str, **rules: str) -> Recipe:
    """The same scheme everywhere."""
    return Recipe(scheme, 1, "", {graph: GraphRecipe(scheme) for graph in (UND, GEN)})


RECIPES = (recipe("nvfp4"), recipe("fp8"))


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("sensitivity") / "edge"
    export_bundle(
        Checkpoint.open(checkpoints["edge"]), root, ExportOptions(MINI_POLICY, parse_variants("primitive-fp32"), "none")
    )
    return Bundle.open(root)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    generator = np.random.RandomState(5)
    return [
        Observation(
            generator.rand(7).astype(np.float32),
            float(generator.rand()),
            "put the cup down",
            image=generator.randint(0, 255, (540, 640, 3), dtype=np.uint8),
        )
        for _ in range(4)
    ]


@pytest.fixture(scope="module")
def evidence(bundle: Bundle, observations: list[Observation]) -> Evidence:
    return Evidence(hooked_calibration(bundle, observations[:2]), observations[:2], observations[2:])


@pytest.fixture(scope="module")
def setup(bundle: Bundle, evidence: Evidence) -> WorkerSetup:
    """A worker's setup with every scheme of the tests."""
    recipes = [*RECIPES, recipe("int8-w8a16")]
    space = open_space(bundle, recipes)
    workload = record_workload(bundle, evidence.seen, evidence.held_out, OPTIONS)
    return WorkerSetup(bundle.root, workload, job._parameters(space, evidence.calibration), "fp32", "cpu")


def plan(bundle: Bundle, out: Path, options: SearchOptions = OPTIONS, data: str = "scene") -> SearchPlan:
    return plan_search(bundle, RECIPES, {"dataset": data}, out, options)


@pytest.fixture(scope="module")
def finished(bundle: Bundle, evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search, made in this process."""
    out = tmp_path_factory.mktemp("finished")
    assert run_search(plan(bundle, out), lambda: evidence)[1]
    return out


def refuse() -> Evidence:
    raise AssertionError("nothing was left to do, and observations were read")


@pytest.mark.parametrize(
    ("graph", "site"),
    [(GEN, "layers.0.self_attn.add_k_proj"), (GEN, "layers.2.mlp_moe_gen.down_proj"), (UND, "layers.1.self_attn.to_v")],
)
def test_a_single_cost_is_what_onnxruntime_gives(
    graph: str, site: str, bundle: Bundle, setup: WorkerSetup, tmp_path: Path
) -> None:
    """A weight-only scheme, put into the ONNX file's weight by hand: the cost must be that of the graph itself."""
    layer = int(site.split(".")[1])
    costs = Worker(setup).run(SiteTask(graph, site, layer, ("int8-w8a16",)))[site_id(graph, site, "int8-w8a16")]
    changed = _with_int8_weight(bundle, graph, site, tmp_path / "changed")
    unchecked = EngineOptions(check_content=False)
    und, gen = (open_engine(changed, name, options=unchecked) for name in (UND, GEN))
    sums = np.zeros((2, 2))
    prompts = encode_prompts(changed, und, [r.inputs for r in setup.workload.held_out], setup.workload.settings)
    for entry, weight in zip(setup.workload.forwards, setup.workload.weights(), strict=True):
        und_kv = prompts.get(entry.tokens)
        assert und_kv is not None
        forward = dataclasses.replace(entry.forward, inputs={**entry.forward.inputs, "und_kv": und_kv})
        found = repeat_forward(gen, forward)
        for place, name in enumerate(("vision_velocity", "action_velocity")):
            reference = entry.forward.outputs[name].astype(np.float64)
            sums[place] += weight * np.square(found[name] - reference).sum(), weight * np.square(reference).sum()
    expected = sums[:, 0] / sums[:, 1]
    assert expected.min() > 1e-9, "the change must be far above the two engines' own difference"
    np.testing.assert_allclose([costs["vision"], costs["action"]], expected, rtol=5e-3)


def _with_int8_weight(bundle: Bundle, graph: str, site: str, root: Path) -> Bundle:
    """A copy of the bundle in which one weight is rounded to 255 steps a column, by numpy.

    Codes by 127 / amax, as ModelOpt finds them: weights that were bf16 often lie on the border of two codes.
    """
    shutil.copytree(bundle.root, root)
    path = root / f"graphs/{graph}.primitive-fp32.onnx"
    proto = onnx.load(str(path), load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == f"{site}.weight")
    place = {entry.key: entry.value for entry in tensor.external_data}
    data = np.memmap(path.parent / place["location"], np.float32, "r+", int(place["offset"]), tuple(tensor.dims))
    amax = np.abs(data).max(0)
    data[...] = np.rint(data * (np.float32(127) / amax)) * (amax / np.float32(127))
    data.flush()
    return Bundle.open(root)


def test_starting_in_the_middle_is_the_whole_forward(bundle: Bundle, setup: WorkerSetup) -> None:
    """Every site of both towers: the layerwise way against quantizing and running everything."""
    worker, workload = Worker(setup), setup.workload
    und, gen = open_tower(bundle, UND), open_tower(bundle, GEN)
    requests = [entry.inputs for entry in workload.held_out]
    for task in site_tasks(open_space(bundle, [RECIPES[0]])):
        cost = worker.run(task)[site_id(task.graph, task.site, "nvfp4")]
        module = (und if task.graph == UND else gen).module
        with fake_quantized(module, {task.site: setup.parameters[task.graph][task.site, "nvfp4"]}, torch.float32):
            prompts = encode_prompts(bundle, und, requests, workload.settings)
            error = whole = 0.0
            for entry, weight in zip(workload.forwards, workload.weights(), strict=True):
                inputs = {**entry.forward.inputs, "und_kv": prompts.get(entry.tokens)}
                found = repeat_forward(gen, dataclasses.replace(entry.forward, inputs=inputs))["action_velocity"]
                reference = entry.forward.outputs["action_velocity"].astype(np.float64)
                error += weight * np.square(found - reference).sum()
                whole += weight * np.square(reference).sum()
        assert cost["action"] == pytest.approx(error / whole, rel=1e-4), task


def test_one_step_alone_leaves_the_steps_before_it_as_they_are(bundle: Bundle, setup: WorkerSetup) -> None:
    gen, workload = open_tower(bundle, GEN), setup.workload
    parameters = {site: p for (site, scheme), p in setup.parameters[GEN].items() if scheme == "nvfp4"}
    requests = [entry.inputs for entry in workload.held_out]
    prompts = encode_prompts(bundle, open_tower(bundle, UND), requests, workload.settings)

    def velocities(engine: Any) -> list[tuple[int, np.ndarray]]:
        heard: list[tuple[int, np.ndarray]] = []
        tap = TappedEngine(engine, lambda forward: heard.append((forward.step, forward.outputs["action_velocity"])))
        run_requests(open_loop(bundle, tap, prompts), requests[:1], workload.settings, tap)
        return heard

    plain = velocities(gen)
    for step in range(workload.settings.steps):
        found = velocities(SteppedEngine(gen, parameters, torch.float32, step))
        same = [np.array_equal(a, b) for (_, a), (_, b) in zip(plain, found, strict=True)]
        assert same == [number < step for number, _ in plain]
    # Afterwards the tower is unquantized again
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(plain, velocities(gen), strict=True))


def _all_records(executor: Any, tasks: Sequence[Task]) -> Records:
    found: Records = {}
    for records in executor.run(tasks):
        found.update(records)
    executor.close()
    return found


def test_every_executor_and_order_gives_the_same_bits(
    bundle: Bundle, setup: WorkerSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = site_tasks(open_space(bundle, RECIPES))
    here = _all_records(InProcess(setup), tasks)
    assert _all_records(InProcess(setup), tasks[::-1]) == here
    monkeypatch.setitem(sys.modules, "ray", make_ray_stub(cpus=2))
    assert _all_records(RayCluster(setup), tasks) == here


def test_processes_give_the_same_bits(bundle: Bundle, setup: WorkerSetup) -> None:
    """The first layer's sites alone: processes take seconds to start."""
    tasks = [task for task in site_tasks(open_space(bundle, RECIPES)) if task.layer == 0]
    found = _all_records(ProcessPool(setup, 2), tasks)
    assert found == _all_records(InProcess(setup), tasks) and len(found) == 2 * len(tasks)


def test_a_worker_that_dies_is_reported(setup: WorkerSetup) -> None:
    executor = ProcessPool(setup, 2)
    try:
        os.kill(executor._children[1]._process.pid or 0, signal.SIGKILL)
        with pytest.raises(HostError, match="worker process") as caught:
            list(executor.run([SiteTask(GEN, "layers.0.self_attn.add_q_proj", 0, ("fp8",))] * 9))
    finally:
        executor.close()
    assert "SIGKILL" in str(caught.value) and "--jobs" in caught.value.fix


@pytest.mark.parametrize("executor", [InProcess, partial(ProcessPool, jobs=1)], ids=["here", "process"])
def test_a_bundle_that_went_away_is_told_alike(executor: Any, setup: WorkerSetup, tmp_path: Path) -> None:
    workers = executor(dataclasses.replace(setup, bundle=tmp_path / "gone"))
    try:
        with pytest.raises(BundleError, match="there is no bundle"):
            list(workers.run([SiteTask(GEN, "layers.0.self_attn.add_q_proj", 0, ("fp8",))]))
    finally:
        workers.close()


class _Stopping(InProcess):
    """Is interrupted after some tasks."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        yield from super().run(tasks[:11])
        raise KeyboardInterrupt


def test_an_interrupted_search_goes_on_and_a_finished_one_does_nothing(
    bundle: Bundle, evidence: Evidence, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "open_executor", lambda setup, jobs: _Stopping(setup))
    with pytest.raises(KeyboardInterrupt):
        run_search(plan(bundle, tmp_path), lambda: evidence)
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 22
    assert not (tmp_path / REPORT).exists()
    monkeypatch.undo()
    measured: list[Task] = []

    class Noting(InProcess):
        def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
            measured.extend(tasks)
            return super().run(tasks)

    monkeypatch.setattr(job, "open_executor", lambda setup, jobs: Noting(setup))
    assert run_search(plan(bundle, tmp_path), lambda: evidence)[1]
    assert sum(isinstance(task, SiteTask) for task in measured) == 32 - 11
    for name in (REPORT, RECIPE, PAGE):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    before = (tmp_path / LEDGER).read_bytes()
    report, worked = run_search(plan(bundle, tmp_path), refuse)
    assert not worked and report == json.loads((finished / REPORT).read_text())
    assert (tmp_path / LEDGER).read_bytes() == before


def test_another_target_measures_no_site_again(
    bundle: Bundle, evidence: Evidence, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    lines = (finished / LEDGER).read_text().splitlines()
    options = dataclasses.replace(OPTIONS, target=Target(max_bits=6.0))
    report, worked = run_search(plan(bundle, tmp_path / "copy", options), lambda: evidence)
    assert worked and report["chosen"]["met"] and report["chosen"]["bits"] <= 6
    added = (tmp_path / "copy" / LEDGER).read_text().splitlines()[len(lines) :]
    assert added and all(json.loads(line)["id"].startswith("mixture") for line in added)


def test_the_recipe_file_gives_what_was_measured(bundle: Bundle, finished: Path) -> None:
    report = json.loads((finished / REPORT).read_text())
    assert report["schema"] == "motedge.sensitivity/v1"
    mixed = load_recipe(str(finished / RECIPE))
    assert mixed.fingerprint() == report["recipe"]["fingerprint"]
    for graph, wanted in report["chosen"]["assignment"].items():
        resolved = mixed.resolve(graph, list(wanted))
        assert {site: resolved[site].id if site in resolved else "none" for site in wanted} == wanted


def test_the_chosen_mixture_keeps_its_bound_and_none_that_was_measured_is_better(finished: Path) -> None:
    report = json.loads((finished / REPORT).read_text())
    chosen = report["chosen"]
    assert chosen["met"] and chosen["error"] <= 0.05
    assert chosen["bytes"] == min(p["bytes"] for p in report["points"] if p["error"] <= 0.05)
    # Errors of single projections add up: not exactly, but to the right size
    for point in report["points"]:
        assert 0.6 < point["error"] / point["predicted"] < 1.6, point["name"]
    uniform = {p["name"]: p for p in report["points"] if p["kind"] == "uniform"}
    assert uniform["uniform nvfp4"]["bits"] == 4.5 and uniform["uniform fp8"]["bits"] == 8.0
    assert uniform["uniform nvfp4"]["error"] > uniform["uniform fp8"]["error"] > 0
    assert report["predicted_time"] is None and any("time is not available" in text for text in report["caveats"])


def test_a_size_that_no_mixture_has_is_refused_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    weights = sum(choice.site.parameters for choice in open_space(bundle, RECIPES).choices)
    least = int(weights * 4.5 / 8)
    with pytest.raises(UsageError, match="that small") as caught:
        plan(bundle, tmp_path, dataclasses.replace(OPTIONS, target=Target(max_bytes=least - 1)))
    assert f"{least} bytes" in caught.value.expected and "4.500 bits" in caught.value.expected
    plan(bundle, tmp_path, dataclasses.replace(OPTIONS, target=Target(max_bytes=least)))
    assert not list(tmp_path.iterdir())


def test_the_folder_of_another_search_is_refused(bundle: Bundle, finished: Path) -> None:
    with pytest.raises(UsageError, match="another search") as caught:
        plan(bundle, finished, data="another scene")
    assert "dataset scene" in caught.value.expected
    with pytest.raises(UsageError, match="another search"):
        plan(bundle, finished, dataclasses.replace(OPTIONS, compute="bf16"))
    manifest = bundle.manifest
    checkpoint = {**manifest.model["checkpoint"], "fingerprint": "0" * 64}
    other = dataclasses.replace(manifest, model={**manifest.model, "checkpoint": checkpoint})
    with pytest.raises(UsageError, match="another search") as caught:
        plan(Bundle(bundle.root, other), finished)
    assert "origin" in caught.value.expected


def test_a_quantized_bundle_and_recipes_that_do_nothing_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    graphs = {
        name: dataclasses.replace(
            entry, variants={i: dataclasses.replace(v, recipe="fp8") for i, v in entry.variants.items()}
        )
        for name, entry in bundle.manifest.graphs.items()
    }
    quantized = Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match="quantized already"):
        plan(quantized, tmp_path)
    elsewhere = Recipe("vision", 1, "", {"vision_encoder": GraphRecipe("fp8")})
    with pytest.raises(UsageError, match="quantize nothing"):
        open_space(bundle, [elsewhere])
    with pytest.raises(UsageError, match="each once"):
        open_space(bundle, [RECIPES[0], RECIPES[0]])


def test_schemes_that_do_not_divide_are_not_offered_and_noted(bundle: Bundle) -> None:
    """Edge's tiny feed-forward is 512 wide: INT4's blocks of 128 fit; a made-up site of 200 inputs does not."""
    rules = (Rule("layers.0.*", "none"),)
    space = open_space(bundle, [recipe("fp8"), Recipe("part", 1, "", {GEN: GraphRecipe("int4-w4a16", rules)})])
    by_site = {(choice.graph, choice.site.name): choice.schemes for choice in space.choices}
    assert by_site[GEN, "layers.0.self_attn.add_q_proj"] == ("fp8",)
    assert by_site[GEN, "layers.1.self_attn.add_q_proj"] == ("fp8", "int4-w4a16")
    assert by_site[UND, "layers.1.self_attn.to_q"] == ("fp8",)


def test_nothing_quantized_within_a_tiny_bound_writes_no_recipe(
    bundle: Bundle, evidence: Evidence, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    options = dataclasses.replace(OPTIONS, front=0, target=Target(max_error=1e-6))
    report, _ = run_search(plan(bundle, tmp_path / "copy", options), lambda: evidence)
    assert report["recipe"] is None and report["chosen"]["bits"] == 16
    assert not (tmp_path / "copy" / RECIPE).exists()
    assert "none quantized" in (tmp_path / "copy" / PAGE).read_text()
