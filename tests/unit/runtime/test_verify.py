"""`motedge verify` on a bundle whose samples were recorded with numpy engines."""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest

from motedge.bundle import Bundle
from motedge.cli import verify as command
from motedge.errors import BundleError, HostError, UsageError
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.tick import run_tick, settings_from_json
from motedge.runtime.verify import verify_bundle

SETTINGS = {
    "steps": 4,
    "shift": 5.0,
    "guidance": 3.0,
    "guidance_interval": [960, 1001],
    "seed": 3,
    "fps": 15.0,
    "action_start_offset": 0,
    "domain_id": 1,
    "raw_dim": 3,
}
GRAPH_DIMS = {"und_prefill": {"S": 5}, "gen_step": {"T": 2, "A": 3, "U": 5, "N": 11}, "vae_encoder": {}}


def _graph_sample(model, graph) -> dict[str, np.ndarray]:
    contract, random = model.contracts[graph], np.random.RandomState(1)
    sizes = {**contract.sizes, **GRAPH_DIMS[graph]}
    inputs = {s.name: random.standard_normal(s.shape(sizes)).astype(np.float32) for s in contract.inputs}
    outputs = {f"out.{s.name}": v for s, v in zip(contract.outputs, model.functions[graph](inputs))}
    return {**{f"in.{name}": value for name, value in inputs.items()}, **outputs}


def _tick_sample(model, numpy_engine, tables) -> dict[str, np.ndarray]:
    action_clean = np.zeros((5, 4), np.float32)
    action_clean[0, :3] = 0.5
    vision_noisy, action_noisy = np.ones(3, np.float32), np.ones(5, np.float32)
    vision_noisy[0] = action_noisy[0] = 0
    arrays = {
        "in.image": np.random.RandomState(2).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32),
        "in.action_clean": action_clean,
        "in.action_noisy": action_noisy,
        "in.vision_noisy": vision_noisy,
        "in.cond_tokens": np.array([1, 2, 3, 4], np.int64),
        "in.uncond_tokens": np.array([1, 4], np.int64),
    }
    loop = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine("gen_step"), tables, model.config)
    outputs = run_tick(loop, numpy_engine("vae_encoder"), arrays, SETTINGS)
    return {**arrays, **outputs, "settings": np.array(json.dumps(SETTINGS))}


@pytest.fixture
def samples(model, numpy_engine, tables) -> dict[str, dict[str, np.ndarray]]:
    graphs = {graph: _graph_sample(model, graph) for graph in GRAPH_DIMS}
    return {**graphs, "tick": _tick_sample(model, numpy_engine, tables)}


@pytest.fixture
def bundle_with(onnx_bundle, seal):
    """Writes samples and their manifest entries; `gates` by sample name."""

    def make(samples, gates=None, none=None):
        entries = {}
        for name, arrays in samples.items():
            (onnx_bundle / "samples").mkdir(exist_ok=True)
            np.savez_compressed(onnx_bundle / f"samples/{name}.npz", **arrays)
            entries[name] = {"file": f"samples/{name}.npz", "reference": "numpy"}
            if gates and name in gates:
                entries[name]["gate"] = gates[name]
        for name, reason in (none or {}).items():
            entries[name] = {"none": reason}
        seal(onnx_bundle, samples=entries)
        return onnx_bundle

    return make


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    args = parser.parse_args(["verify", *map(str, arguments)])
    return args.run(args)


def test_every_sample_passes(bundle_with, samples) -> None:
    reports = verify_bundle(Bundle.open(bundle_with(samples)))
    assert [r.sample for r in reports] == ["und_prefill", "gen_step", "vae_encoder", "tick"]
    assert [[c.tensor for c in r.comparisons] for r in reports] == [
        ["und_kv"],
        ["vision_velocity", "action_velocity"],
        ["latent"],
        ["latent", "vision", "action"],
    ]
    for report in reports:
        assert report.passed, report
        assert report.duration_ms > 0
    assert reports[-1].variants == dict.fromkeys(GRAPH_DIMS, "primitive-fp32")


def test_the_command_prints_a_table(bundle_with, samples, capsys) -> None:
    assert _run(bundle_with(samples)) == 0
    out = capsys.readouterr().out.splitlines()
    assert " ".join(out[0].split()) == "sample tensor variant cosine relative L2 max error time result"
    assert len(out) == 8
    assert all(line.endswith("pass") for line in out[1:])


def test_the_command_prints_json(bundle_with, samples, capsys) -> None:
    assert _run(bundle_with(samples), "--json", "--threads", "1", "--variant", "primitive-fp32") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "motedge.verify/v1"
    assert result["passed"] is True
    gen = result["samples"][1]
    assert gen["gate"] == {"cosine": 0.999999, "relative_l2": 1e-4}
    assert gen["comparisons"][0]["cosine"] > 0.999999
    assert gen["reference"] == "numpy"


def test_a_wrong_result_fails(bundle_with, samples, capsys) -> None:
    samples["gen_step"]["out.action_velocity"] = samples["gen_step"]["out.action_velocity"] * np.float32(1.01)
    root = bundle_with(samples)
    assert _run(root) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "gen_step: expected cosine >= 0.999999, relative L2 <= 0.0001" in out
    by_name = {r.sample: r.passed for r in verify_bundle(Bundle.open(root))}
    assert by_name == {"und_prefill": True, "gen_step": False, "vae_encoder": True, "tick": True}


def test_a_recorded_gate_counts(bundle_with, samples) -> None:
    samples["gen_step"]["out.action_velocity"] = samples["gen_step"]["out.action_velocity"] * np.float32(1.01)
    wide = {"cosine": 0.99, "relative_l2": 0.05}
    for gate in (wide, {"fp32": wide, "fp16": {"cosine": 1.0, "relative_l2": 0.0}}):
        root = bundle_with(samples, gates={"gen_step": gate})
        assert all(r.passed for r in verify_bundle(Bundle.open(root)))


def test_a_gate_for_another_dtype_leaves_the_default(bundle_with, samples) -> None:
    root = bundle_with(samples, gates={"gen_step": {"fp16": {"cosine": 0.5, "relative_l2": 1.0}}})
    assert verify_bundle(Bundle.open(root))[1].gate.relative_l2 == 1e-4


def test_nan_in_the_reference_fails(bundle_with, samples, capsys) -> None:
    samples["und_prefill"]["out.und_kv"] = samples["und_prefill"]["out.und_kv"].copy()
    samples["und_prefill"]["out.und_kv"].flat[0] = np.nan
    assert _run(bundle_with(samples)) == 1
    assert "FAIL, 1 not finite" in capsys.readouterr().out


def test_nan_from_a_graph_fails_graph_and_tick(bundle_with, samples, onnx_bundle, capsys) -> None:
    onnx = pytest.importorskip("onnx")
    path = onnx_bundle / "graphs/gen_step.primitive-fp32.onnx"
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "third")
    tensor.raw_data = np.float32(np.nan).tobytes()
    onnx.save(model, path)
    assert _run(bundle_with(samples)) == 1
    out = capsys.readouterr().out
    assert "not finite" in out
    assert "tick: graph 'gen_step' returned NaN or infinity at step 0, conditional branch" in out
    assert _run(onnx_bundle, "--json") == 1
    tick = json.loads(capsys.readouterr().out)["samples"][-1]
    assert tick["passed"] is False
    assert tick["comparisons"] == []


def test_absent_samples_are_reported(bundle_with, samples, capsys) -> None:
    del samples["tick"], samples["vae_encoder"]
    assert _run(bundle_with(samples, none={"tick": "too little memory"})) == 0
    out = capsys.readouterr().out
    assert "tick: none: too little memory" in out
    assert "vae_encoder: none: the bundle was exported without it" in out


def test_nothing_to_verify_is_not_a_pass(bundle_with) -> None:
    with pytest.raises(HostError, match="nothing could be verified") as caught:
        _run(bundle_with({}, none={"tick": "too little memory"}))
    assert caught.value.exit_code == 3
    assert "too little memory" in str(caught.value)


def test_damaged_samples(bundle_with, samples, onnx_bundle, seal) -> None:
    root = bundle_with(samples)
    path = root / "samples/gen_step.npz"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(BundleError, match="differs from what was exported"):
        verify_bundle(Bundle.open(root))
    # As a manifest would record it that was written over a damaged file
    seal(root)
    with pytest.raises(BundleError, match="can't be read"):
        verify_bundle(Bundle.open(root))


def test_a_changed_table_is_found(bundle_with, samples) -> None:
    root = bundle_with(samples)
    path = root / "tables/embed_tokens.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"embed_tokens\.bin differs"):
        verify_bundle(Bundle.open(root))


def test_pickled_samples_are_not_loaded(bundle_with, samples) -> None:
    samples["gen_step"]["in.vision"] = np.array([{"code": 1}], dtype=object)
    with pytest.raises(BundleError, match="can't be read"):
        verify_bundle(Bundle.open(bundle_with(samples)))


def test_lacking_arrays_are_named(bundle_with, samples) -> None:
    del samples["gen_step"]["in.cos"]
    with pytest.raises(BundleError, match=r"in\.cos"):
        verify_bundle(Bundle.open(bundle_with(samples)))


def test_an_entry_without_file_and_reason(bundle_with, samples, seal) -> None:
    root = bundle_with(samples)
    seal(root, samples={"gen_step": {"reference": "x"}})
    with pytest.raises(BundleError, match="neither a file nor a reason"):
        verify_bundle(Bundle.open(root))


@pytest.mark.parametrize("option", [("--engine", "onnx"), ("--variant", "fused-bf16")])
def test_unknown_backend_or_variant(bundle_with, samples, option) -> None:
    with pytest.raises((UsageError, BundleError)):
        _run(bundle_with(samples), *option)


def test_settings_are_checked() -> None:
    assert settings_from_json(json.dumps(SETTINGS)) == SETTINGS
    with pytest.raises(BundleError, match="not JSON"):
        settings_from_json("{")
    with pytest.raises(BundleError, match="not a JSON object"):
        settings_from_json("[]")
    with pytest.raises(BundleError, match="did you mean 'seed'"):
        settings_from_json(json.dumps({**SETTINGS, "sead": 1}))
    with pytest.raises(BundleError, match="no seed"):
        settings_from_json(json.dumps({k: v for k, v in SETTINGS.items() if k != "seed"}))


def test_a_report_of_infinite_distance_is_still_json(bundle_with, samples) -> None:
    samples["vae_encoder"]["out.latent"] = np.zeros_like(samples["vae_encoder"]["out.latent"])
    report = verify_bundle(Bundle.open(bundle_with(samples)))[2]
    assert report.passed is False
    json.dumps(report.to_dict(), allow_nan=False)
    assert dataclasses.asdict(report)["comparisons"][0]["relative_l2"] == float("inf")
