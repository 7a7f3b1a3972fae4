"""The fidelity report of tiny bundles: its numbers against numpy, onnxruntime and acting policies; both verdicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hooked_calibration import hooked_calibration
from onnx import numpy_helper
from tiny import MINI_POLICY

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, InternalError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.quant.calibration.result import Calibration
from motedge.quant.datasets.dataset import Moment
from motedge.quant.fidelity.measure import FidelityOptions, measure_fidelity
from motedge.quant.fidelity.report import FidelityReport, read_report, write_report
from motedge.quant.job import quantize_bundle
from motedge.quant.parameters import SiteParameters
from motedge.quant.plan import QuantizePlan, make_plan
from motedge.quant.recipe import load_recipe
from motedge.quant.replay import Forward, RequestReader, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.quant.schemes import SCHEMES
from motedge.quant.statistics import Statistics
from motedge.runtime.backends import open_engine
from motedge.runtime.comparison import Gate
from motedge.runtime.policy.loader import load_policy
from motedge.runtime.policy.observation import Observation

UND, GEN = "und_prefill", "gen_step"
BASE = "primitive-fp32"
RECIPES = ("w8a16", "fp8", "nvfp4")
OPTIONS = FidelityOptions(seed=5)
# Of the mini-policy shapes: channels, frames (the first one is given), rows, columns
LATENT = (48, 9, 5, 6)


class Scene:
    """Four seeded observations."""

    name, kind, notes = "scene", "stand-in", ("made up",)

    def moments(self) -> list[Moment]:
        return [Moment("a", index) for index in range(4)]

    def observation(self, moment: Moment) -> Observation:
        random = np.random.RandomState(moment.index)
        image = random.randint(0, 255, (540, 640, 3), dtype=np.uint8)
        joints = random.rand(7).astype(np.float32)
        return Observation(joints, float(random.rand()), "put the cup down", image=image)

    def fingerprint(self) -> str:
        return "5" * 64


HELD_OUT = tuple(Scene().moments()[2:])
Reports = Mapping[str, FidelityReport]
Plans = Mapping[str, tuple[QuantizePlan, Statistics]]


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("fidelity") / "edge"
    export_bundle(Checkpoint.open(checkpoints["edge"]), root, ExportOptions(MINI_POLICY, parse_variants(BASE), "none"))
    return Bundle.open(root)


@pytest.fixture(scope="module")
def calibration(bundle: Bundle) -> Calibration:
    scene = Scene()
    return hooked_calibration(bundle, [scene.observation(moment) for moment in scene.moments()[:2]])


@pytest.fixture(scope="module")
def plans(bundle: Bundle, calibration: Calibration) -> Plans:
    """Recipe -> its plan, and its parameters, with nothing held out."""
    found = {}
    for name in RECIPES:
        plan = make_plan(bundle, load_recipe(name))
        parameters = {graph: calibration.parameters(graph, schemes) for graph, schemes in plan.schemes.items()}
        found[name] = plan, Statistics(parameters, "calibration", calibration)
    return found


@pytest.fixture(scope="module")
def quantized(plans: Plans, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One bundle with every recipe."""
    root = tmp_path_factory.mktemp("quantized") / "edge-quantized"
    for plan, statistics in plans.values():
        quantize_bundle(plan, statistics, root, FidelityOptions())
    return Bundle.open(root)


def measure(
    bundle: Bundle,
    quantized: Bundle | None,
    plans: Plans,
    recipe: str,
    options: FidelityOptions = OPTIONS,
    held_out: tuple[Moment, ...] = HELD_OUT,
) -> FidelityReport:
    statistics = plans[recipe][1]
    assert statistics.calibration is not None
    return measure_fidelity(
        bundle, quantized, recipe, statistics.parameters, statistics.calibration.data, Scene(), held_out, options
    )


@pytest.fixture(scope="module")
def reports(bundle: Bundle, quantized: Bundle, plans: Plans) -> Reports:
    """Recipe -> report, measured in onnxruntime."""
    return {name: measure(bundle, quantized, plans, name) for name in RECIPES}


def initializers(bundle: Bundle, graph: str) -> dict[str, np.ndarray]:
    model = onnx.load(str(bundle.path(bundle.variant(graph, BASE).file)))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_weight_errors_are_those_of_rounding_by_hand(bundle: Bundle, reports: Reports) -> None:
    """INT8 by column, computed here in numpy from the ONNX file's own initializers."""
    for graph in (UND, GEN):
        weights = initializers(bundle, graph)
        sites = [site for site in reports["w8a16"].sites if site.graph == graph]
        assert len(sites) == {UND: 2 * 6 + 2, GEN: 3 * 6}[graph]
        for site in sites:
            weight = weights[f"{site.site}.weight"].astype(np.float64)
            scale = (np.abs(weight).max(0) / 127).astype(np.float32)
            error = np.rint(weight / scale) * scale - weight
            assert site.weight.sqnr_db == pytest.approx(10 * np.log10((weight**2).sum() / (error**2).sum()), abs=0.02)
            assert site.weight.max_abs == pytest.approx(np.abs(error).max(), rel=1e-2)
            assert (site.scheme, site.weight_bits, site.activation) == ("int8-w8a16", 8.0, None)
            assert site.parameters == weight.size == site.weight.elements


def test_smoothing_is_undone_before_a_weight_is_compared(bundle: Bundle) -> None:
    site = "layers.1.self_attn.add_v_proj"
    weight = initializers(bundle, GEN)[f"{site}.weight"]
    factor = np.geomspace(0.1, 10.0, len(weight)).astype(np.float32)
    known = {GEN: {site: SiteParameters(SCHEMES["int8-sq"], 1.0, torch.from_numpy(factor))}}
    found = measure_fidelity(bundle, None, "int8-sq", known, None, None, (), OPTIONS).sites[0].weight
    smoothed = weight / factor[:, None]
    scale = np.abs(smoothed).max(0) / np.float32(127)
    error = np.rint(smoothed / scale) * scale * factor[:, None] - weight
    assert found.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(weight), rel=1e-3)


def recorded(bundle: Bundle, moments: tuple[Moment, ...]) -> list[Forward]:
    """The unquantized graphs' forwards, in onnxruntime."""
    und, gen, vae = (open_engine(bundle, graph, variant=BASE) for graph in (UND, GEN, "vae_encoder"))
    reader = RequestReader(bundle, vae)
    requests = [reader.read(Scene().observation(m), OPTIONS.seed + number) for number, m in enumerate(moments)]
    forwards: list[Forward] = []
    tap = TappedEngine(gen, forwards.append)
    run_requests(
        open_loop(bundle, tap, encode_prompts(bundle, und, requests, reader.settings)), requests, reader.settings, tap
    )
    return forwards


def test_velocities_at_equal_inputs_are_the_quantized_graphs(
    bundle: Bundle, quantized: Bundle, reports: Reports
) -> None:
    """The quantized ONNX file run by onnxruntime itself, on the reference's inputs."""
    report = reports["fp8"]
    session = onnxruntime.InferenceSession(str(quantized.path(quantized.variant(GEN, f"{BASE}-fp8").file)))
    outputs = [output.name for output in session.get_outputs()]
    found: dict[tuple[int, str, str], tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for forward in recorded(bundle, HELD_OUT):
        results = dict(zip(outputs, session.run(None, dict(forward.inputs)), strict=True))
        for tensor in ("vision", "action"):
            pair = found.setdefault((forward.step, forward.branch, tensor), ([], []))
            pair[0].append(results[f"{tensor}_velocity"])
            pair[1].append(forward.outputs[f"{tensor}_velocity"])
    # Edge's policy: guidance at the first of 4 steps alone
    assert len(found) == 2 * 5 == len(report.velocities)
    for entry in report.velocities:
        own, reference = (np.stack(side) for side in found[entry.step, entry.branch, entry.tensor])
        assert entry.teacher_forced.elements == own.size
        # Inputs come from another run of the same graphs, whose threads may add up in another order; FP8 rounds
        expected = np.linalg.norm(own - reference) / np.linalg.norm(reference)
        assert entry.teacher_forced.relative_l2 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("recipe", ["w8a16", "nvfp4"])
def test_the_chunk_is_what_acting_policies_answer(
    recipe: str, bundle: Bundle, quantized: Bundle, reports: Reports
) -> None:
    errors, references = [], []
    policies = (
        load_policy(bundle.root, variant=BASE, check="size"),
        load_policy(quantized.root, variant=BASE, recipe=recipe, check="size"),
    )
    for number, moment in enumerate(HELD_OUT):
        seen = Scene().observation(moment)
        right, own = (policy.act(seen, seed=OPTIONS.seed + number).actions for policy in policies)
        errors.append(np.abs(own.astype(np.float64) - right))
        references.append(right)
    for policy in policies:
        policy.close()
    chunk, error = reports[recipe].chunk, np.stack(errors)
    assert chunk is not None
    for index, joint in enumerate(chunk.joints):
        assert joint.mean_abs == pytest.approx(error[:, :, index].mean(), rel=0.02)
        assert joint.max_abs == pytest.approx(error[:, :, index].max(), rel=0.05)
        assert joint.reference_span == pytest.approx(np.ptp(np.stack(references)[:, :, index]), rel=1e-3)
    np.testing.assert_allclose(chunk.rows, error.mean(0), rtol=0.2, atol=0.02 * error.mean())
    assert chunk.overall.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(references), rel=0.02)


def test_emulation_measures_what_the_graphs_do(bundle: Bundle, plans: Plans, reports: Reports) -> None:
    emulated = measure(bundle, None, plans, "fp8")
    assert "emulated" in emulated.facts["engine"] and "onnxruntime" in reports["fp8"].facts["engine"]
    assert any("emulated in torch" in caveat for caveat in emulated.caveats)
    assert not any("emulated" in caveat for caveat in reports["fp8"].caveats)
    for name in ("latent", "und_kv"):
        ours, theirs = (getattr(report, name).relative_l2 for report in (emulated, reports["fp8"]))
        assert ours == pytest.approx(theirs, rel=0.1)
    assert emulated.sites[0].weight == reports["fp8"].sites[0].weight and emulated.size == {}


def test_activations_of_both_towers_are_measured(calibration: Calibration, reports: Reports) -> None:
    for site in reports["fp8"].sites:
        assert site.activation is not None and site.range_ratio is not None and site.clipped is not None
        assert 20 < (site.activation.sqnr_db or 0) < 40, site.site
        assert (site.clipped > 0) <= (site.range_ratio > 1)
        assert 0.5 < site.range_ratio < 2
    assert {site.graph for site in reports["fp8"].sites} == {UND, GEN}


def test_activations_of_every_step_and_branch_are_measured(bundle: Bundle, reports: Reports) -> None:
    """Small inputs are looked at whole, so that values can be counted: 5 forwards of 2 requests, all their tokens."""
    weights = initializers(bundle, GEN)
    tokens = (LATENT[1] * 3 * 3) + 33
    for site in reports["fp8"].sites:
        if site.graph == GEN:
            assert site.activation is not None
            assert site.activation.elements == 2 * 5 * tokens * weights[f"{site.site}.weight"].shape[0]


def test_a_small_calibrated_range_shows_as_clipping(bundle: Bundle, plans: Plans, reports: Reports) -> None:
    site = "layers.1.mlp_moe_gen.up_proj"
    known = plans["fp8"][1].parameters[GEN][site]
    narrow = {GEN: {site: dataclasses.replace(known, input_amax=(known.input_amax or 0) / 4)}}
    found = measure_fidelity(bundle, None, "fp8", narrow, None, Scene(), HELD_OUT[:1], OPTIONS).sites[0]
    wide = next(other for other in reports["fp8"].sites if other.site == site)
    assert found.range_ratio is not None and wide.range_ratio is not None and found.clipped is not None
    assert found.range_ratio > 3 and found.clipped > 0.001 and found.activation and wide.activation
    assert (found.activation.sqnr_db or 0) < (wide.activation.sqnr_db or 0)


def test_the_verdict_falls_both_ways(bundle: Bundle, quantized: Bundle, plans: Plans, reports: Reports) -> None:
    """By the default gate: INT8 weights pass, NVFP4 on random weights misses it; another gate turns both."""
    assert reports["w8a16"].verdict.status == "passed"
    assert reports["nvfp4"].verdict.status == "failed"
    strict = FidelityOptions(seed=5, gate=Gate(0.9999999, 1e-5))
    assert measure(bundle, quantized, plans, "w8a16", strict).verdict.status == "failed"
    lenient = FidelityOptions(seed=5, gate=Gate(0.5, 1.0))
    assert measure(bundle, quantized, plans, "nvfp4", lenient).verdict.status == "passed"


def test_what_decides(reports: Reports) -> None:
    for report in reports.values():
        chunk, latent, worst = report.verdict.deciding
        assert report.chunk is not None and report.latent is not None
        assert (chunk.what, chunk.relative_l2) == ("action chunk", report.chunk.overall.relative_l2)
        assert (latent.what, latent.relative_l2) == ("final latent", report.latent.relative_l2)
        assert worst.relative_l2 == max(entry.teacher_forced.relative_l2 or 0 for entry in report.velocities)


def test_frames_that_are_given_do_not_count(bundle: Bundle, reports: Reports) -> None:
    """The camera's frame is the same on both sides: counted in, it would make the latent look better than it is."""
    channels, frames, rows, columns = LATENT
    latent = reports["w8a16"].latent
    assert latent is not None and latent.elements == len(HELD_OUT) * channels * (frames - 1) * rows * columns


def test_nothing_quantized_is_no_error(bundle: Bundle) -> None:
    report = measure_fidelity(bundle, None, "nothing", {}, None, Scene(), HELD_OUT[:1], OPTIONS)
    assert report.verdict.status == "passed" and report.sites == []
    assert report.latent is not None and report.latent.relative_l2 == 0 and report.latent.sqnr_db is None


def test_a_side_that_overflows_fails_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    """A scale of NaN in one projection: the loop stops at it; the report must still come, and be strict JSON."""
    bad = SiteParameters(SCHEMES["fp8"], float("nan"))
    for graph, site in ((GEN, "layers.2.self_attn.to_add_out"), (UND, "layers.0.self_attn.to_v")):
        report = measure_fidelity(bundle, None, "fp8", {graph: {site: bad}}, None, Scene(), HELD_OUT[:1], OPTIONS)
        assert report.verdict.status == "failed"
        assert report.chunk is not None and report.chunk.joints[0].mean_abs is None
        assert all(entry.free_running.non_finite for entry in report.velocities)
        # On the reference's inputs a broken reasoner does not matter
        assert all(bool(entry.teacher_forced.non_finite) == (graph == GEN) for entry in report.velocities)
        write_report(tmp_path, report)
        assert read_report(tmp_path) == report
        assert "not finite" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_without_held_out_observations_weights_alone_are_measured(
    bundle: Bundle, quantized: Bundle, plans: Plans
) -> None:
    report = measure(bundle, quantized, plans, "fp8", held_out=())
    assert report.verdict.status == "not judged" and report.verdict.reason and report.verdict.deciding == []
    assert report.velocities == [] and report.chunk is None and len(report.sites) == 32
    assert report.facts["data"]["held_out"] == []


def test_sizes_are_those_of_the_files(bundle: Bundle, quantized: Bundle, reports: Reports) -> None:
    for graph, size in reports["fp8"].size.items():
        for own, variant, key in ((bundle, BASE, "source_bytes"), (quantized, f"{BASE}-fp8", "quantized_bytes")):
            files = own.manifest.files
            assert size[key] == sum(files[name].bytes for name in own.variant(graph, variant).weights)
        assert size["quantized_bytes"] < 0.5 * size["source_bytes"]
    assert set(reports["fp8"].size) == {UND, GEN}


def test_the_record_of_where_it_comes_from(bundle: Bundle, calibration: Calibration, reports: Reports) -> None:
    report = reports["fp8"]
    facts = report.facts
    assert facts["bundles"] == {"source": "edge", "quantized": "edge-quantized"}
    assert facts["recipe"]["id"] == "fp8" and facts["recipe"]["revision"] == load_recipe("fp8").revision
    assert facts["model"]["checkpoint"]["fingerprint"] == calibration.origin
    assert facts["data"]["held_out"] == [["a", 2], ["a", 3]] and facts["data"]["calibration"]
    assert facts["data"]["measured_on"]["fingerprint"] == "5" * 64 and facts["noise_seeds"] == [5, 6]
    assert {"motedge", "torch", "onnxruntime"} <= set(facts["versions"]) and facts["machine"]["cpu"]
    assert facts["compute"] == "fp32" and facts["date"].endswith("+00:00")
    assert str(bundle.root.parent) not in json.dumps(report.to_dict())
    assert any("random" in caveat for caveat in report.caveats)
    assert any("does not predict task success" in caveat for caveat in report.caveats)


def test_data_that_nothing_was_calibrated_on_is_recorded_too(bundle: Bundle) -> None:
    known = {GEN: {"layers.0.self_attn.add_q_proj": SiteParameters(SCHEMES["int8-w8a16"])}}
    data = measure_fidelity(bundle, None, "w8a16", known, None, Scene(), HELD_OUT[:1], OPTIONS).facts["data"]
    assert (data["dataset"], data["calibration"], data["held_out"]) == ("scene", [], [["a", 2]])
    assert data["notes"] == ["made up"] and data["fingerprint"] == "5" * 64


def test_bundles_that_do_not_belong_together(bundle: Bundle, quantized: Bundle, plans: Plans) -> None:
    origin = {**bundle.manifest.model["checkpoint"], "fingerprint": "0" * 64}
    model = {**bundle.manifest.model, "checkpoint": origin}
    other = Bundle(quantized.root, dataclasses.replace(quantized.manifest, model=model))
    with pytest.raises(BundleError, match="another checkpoint"):
        measure(bundle, other, plans, "fp8")
    with pytest.raises(BundleError, match="quantized already"):
        measure(quantized, None, plans, "fp8")
    with pytest.raises(BundleError, match="no variant of recipe 'fp8'"):
        measure(bundle, bundle, plans, "fp8")


def test_what_can_not_be_measured(bundle: Bundle, plans: Plans) -> None:
    with pytest.raises(UsageError, match="onnxruntime can't run"):
        measure(bundle, None, plans, "fp8", FidelityOptions(engine="onnxruntime"))
    with pytest.raises(InternalError, match=r"no site layers\.7"):
        measure_fidelity(
            bundle, None, "x", {GEN: {"layers.7.y": SiteParameters(SCHEMES["fp8"], 1.0)}}, None, None, (), OPTIONS
        )


def test_torch_on_request_though_onnxruntime_could(bundle: Bundle, quantized: Bundle, plans: Plans) -> None:
    report = measure(bundle, quantized, plans, "w8a16", FidelityOptions(engine="torch"), HELD_OUT[:1])
    assert report.facts["engine"] == "torch fp32, quantization emulated with scales in fp32"
    assert report.verdict.status == "passed" and report.size


def test_graphs_that_no_cpu_runs_are_emulated_and_the_report_says_so(bundle: Bundle, quantized: Bundle) -> None:
    """The variants renamed to what onnxruntime can't run: only names and types of them matter here."""

    def renamed(original: Bundle) -> Bundle:
        graphs = {}
        for graph, entry in original.manifest.graphs.items():
            own = {name.replace(BASE, "fused-bf16"): variant for name, variant in entry.variants.items()}
            graphs[graph] = dataclasses.replace(entry, variants=own)
        return Bundle(original.root, dataclasses.replace(original.manifest, graphs=graphs))

    source, other = renamed(bundle), renamed(quantized)
    known = {GEN: {"layers.0.self_attn.add_q_proj": SiteParameters(SCHEMES["int8-w8a16"])}}
    report = measure_fidelity(source, other, "w8a16", known, None, None, (), OPTIONS)
    assert "onnxruntime can't run the quantized graphs on a CPU" in report.facts["engine"]
    assert "scales in bf16" in report.facts["engine"] and set(report.size) == {GEN}
    finer = measure_fidelity(bundle, quantized, "w8a16", known, None, None, (), OPTIONS)
    assert report.sites[0].weight != finer.sites[0].weight
    with pytest.raises(UsageError, match="onnxruntime can't run"):
        measure_fidelity(source, other, "w8a16", known, None, None, (), FidelityOptions(engine="onnxruntime"))
