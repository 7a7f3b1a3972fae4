"""`motedge quantize` as a user runs it: from a data set to a bundle that verifies and acts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from damage import contents, snapshot
from quant_scene import GEN, UND, export_policy, observation

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.cli.main import main
from motedge.runtime.policy.observation_folder import write_observation

pytest.importorskip("modelopt")
pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def source(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "bundle"
    return export_policy(checkpoints["edge"], root, "primitive-fp32,fused-bf16", "auto").root


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recorded requests."""
    root = tmp_path_factory.mktemp("requests")
    for number in range(12):
        write_observation(root / f"request-{number:06d}", observation(number))
    return root


def quantize(source: Path, recipe: str, out: Path, *options: object) -> int:
    return main(["quantize", str(source), "--recipe", recipe, "--out", str(out), *map(str, options)])


def few(requests: Path) -> list[object]:
    return ["--calibration", requests, "--observations", 2, "--held-out", 1]


@pytest.fixture(scope="module")
def quantized(source: Path, requests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In INT8 after SmoothQuant, which passes the gate, and in NVFP4, which on random weights does not."""
    out = tmp_path_factory.mktemp("quantized") / "bundle"
    assert quantize(source, "int8-sq", out, *few(requests)) == 0
    assert quantize(source, "nvfp4", out, *few(requests), "--reuse", out / "calibration/int8-sq") == 1
    return out


def test_the_bundle_is_whole_and_says_what_it_is(source: Path, quantized: Path) -> None:
    bundle = Bundle.open(quantized)
    bundle.check_files()
    assert {path.relative_to(quantized).as_posix() for path in quantized.rglob("*") if path.is_file()} == {
        "manifest.json",
        *bundle.manifest.files,
    }
    for graph in (UND, GEN):
        assert set(bundle.graph(graph).variants) == {
            f"{base}-{recipe}" for base in ("primitive-fp32", "fused-bf16") for recipe in ("int8-sq", "nvfp4")
        }
    assert set(bundle.graph("vae_encoder").variants) == {"primitive-fp32", "fused-bf16"}
    for recipe, status in (("int8-sq", "passed"), ("nvfp4", "failed")):
        facts = bundle.variant(GEN, f"primitive-fp32-{recipe}").facts
        assert facts["fidelity"]["status"] == status
        assert facts["quantization"]["recipe"] == recipe
        report = json.loads((quantized / f"fidelity/{recipe}/report.json").read_text())
        assert report["verdict"] == facts["fidelity"]
        assert "does not predict task success" in (quantized / f"fidelity/{recipe}/report.html").read_text()


def test_weights_are_packed(source: Path, quantized: Path) -> None:
    """Of the projections; heads and norms, a third of so small a model, stay as they are."""
    before, after = Bundle.open(source), Bundle.open(quantized)
    for recipe, bits in (("int8-sq", 8), ("nvfp4", 4.5)):
        old = sum(before.manifest.files[n].bytes for n in before.variant(UND, "fused-bf16").weights)
        new = sum(after.manifest.files[n].bytes for n in after.variant(UND, f"fused-bf16-{recipe}").weights)
        assert new / old == pytest.approx(bits / 16, rel=0.06), recipe


def test_a_second_run_does_nothing(source: Path, requests: Path, quantized: Path) -> None:
    before = snapshot(quantized)
    assert quantize(source, "int8-sq", quantized, *few(requests)) == 0
    assert quantize(source, "nvfp4", quantized, *few(requests)) == 1
    assert snapshot(quantized) == before


def test_verify_holds_a_quantized_graph_against_what_was_measured(quantized: Path, tmp_path: Path) -> None:
    for recipe in ("int8-sq", "nvfp4"):
        assert main(["verify", str(quantized), "--recipe", recipe]) == 0
    # Which recipe is not said
    assert main(["verify", str(quantized)]) == 2


def test_the_policy_acts_on_it(
    quantized: Path, source: Path, requests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(bundle: Path, *options: str) -> np.ndarray:
        seen = str(requests / "request-000000")
        assert main(["run", str(bundle), "--observation", seen, "--seed", "3", "--json", *options]) == 0
        return np.array(json.loads(capsys.readouterr().out)["actions"])

    reference, found = act(source), act(quantized, "--recipe", "int8-sq")
    assert found.shape == (32, 8)
    error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert 0 < error < 0.05


def test_interrupted_after_calibration(
    source: Path, requests: Path, quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that were finished stay, and the result is the one of an undisturbed run."""
    from motedge.quant import job

    written, original = [], job.write_quantized

    def stop_at_the_third(*arguments: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        original(*arguments)

    monkeypatch.setattr(job, "write_quantized", stop_at_the_third)
    assert quantize(source, "int8-sq", tmp_path / "b", *few(requests)) == 130
    monkeypatch.setattr(job, "write_quantized", original)
    assert not (tmp_path / "b/manifest.json").exists()
    assert quantize(source, "int8-sq", tmp_path / "b", *few(requests)) == 0
    again, whole = contents(tmp_path / "b"), contents(quantized)
    graphs = [name for name in again if name.startswith(("graphs/", "calibration/")) and "int8-sq" in name]
    assert graphs and all(again[name] == whole[name] for name in graphs)
    assert not list((tmp_path / "b").rglob("*.partial")) and not list((tmp_path / "b").rglob(".calibration*"))


def test_weight_only_needs_no_data(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize(source, "w8a16", tmp_path / "b") == 0
    assert "not judged" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "b")]) == 0


def test_a_gate_of_ones_own_decides_the_exit_code(source: Path, requests: Path, tmp_path: Path) -> None:
    strict = ["--min-cosine", 1, "--max-relative-l2", 0]
    assert quantize(source, "w8a16", tmp_path / "b", *few(requests), *strict) == 1
    loose = ["--min-cosine", 0, "--max-relative-l2", 2]
    assert quantize(source, "w8a16", tmp_path / "b", *few(requests), *loose) == 0


def test_dry_run_writes_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize(source, "mixed", tmp_path / "b", "--dry-run", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "b").exists()
    row = next(r for r in said["graphs"] if (r["graph"], r["variant"]) == (GEN, "fused-bf16"))
    assert row["sites"] == {"fp8": 16, "nvfp4": 2} and row["quantized_bytes"] < row["bytes"]


def test_what_is_refused(
    source: Path, requests: Path, quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert quantize(*arguments) == 2
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    new = tmp_path / "new"
    assert "needs calibration" in refused(source, "fp8", new)
    assert "quantized already" in refused(quantized, "fp8", new)
    assert "can't run on jetson-orin-nano-8gb" in refused(source, "fp8", new, "--target", "jetson-orin-nano-8gb")
    assert "did you mean 'int8-sq'" in refused(source, "int8-qs", new)
    assert "no unquantized variant" in refused(source, "w8a16", new, "--variants", "primitive-fp31")
    assert "too small" in refused(source, "fp8", new, "--calibration", requests, "--observations", 100)
    file = tmp_path / "mine.toml"
    head = 'schema = "motedge.recipe/v1"\nid = "mine"\nrevision = 1\nsummary = ""\n[gen_step]\ndefault = "none"\n'
    file.write_text(head + '[[gen_step.rules]]\nmatch = "layers.*.mlp.*"\nscheme = "fp8"\n')
    assert "matches nothing" in refused(source, str(file), new)
    assert "is the bundle to be quantized" in refused(source, "w8a16", source)


def test_a_folder_of_another_model(
    checkpoints: dict[str, Path], quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_checkpoint(tmp_path / "other", "edge", "policy-droid", "tiny", seed=8)
    export_policy(other, tmp_path / "bundle", "primitive-fp32")
    before = snapshot(quantized)
    assert quantize(tmp_path / "bundle", "w8a16", quantized) == 2
    assert "another model" in capsys.readouterr().err
    assert snapshot(quantized) == before


def test_a_full_disk_leaves_nothing_half_written(
    source: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from motedge.quant.emission import data_file

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_file, "write_chunks", full)
    assert quantize(source, "w8a16", tmp_path / "b") == 3
    assert "disk" in capsys.readouterr().err
    assert not list((tmp_path / "b").rglob("*.data")) and not list((tmp_path / "b").rglob("*.partial"))


def test_an_fp8_checkpoint_needs_no_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own scales and codes come through export and quantization unchanged."""
    import onnx
    import torch
    from safetensors.torch import load_file

    checkpoint = make_checkpoint(tmp_path / "fp8", "nano", "policy-droid", "tiny", seed=3, precision="fp8")
    export_policy(checkpoint, tmp_path / "bundle", "fused-bf16")
    for recipe in ("fp8-w8a16", "fp8"):
        assert quantize(tmp_path / "bundle", recipe, tmp_path / "out") == 0
    assert quantize(tmp_path / "bundle", "int8-sq", tmp_path / "out") == 2
    assert "needs calibration" in capsys.readouterr().err
    stored = {}
    for file in (checkpoint / "transformer").glob("*.safetensors"):
        stored.update(load_file(file))
    for recipe in ("fp8-w8a16", "fp8"):
        model = onnx.load(str(tmp_path / f"out/graphs/gen_step.fused-bf16-{recipe}.onnx"))
        found = {tensor.name: tensor for tensor in model.graph.initializer}
        for name, scale in ((n, n.replace(".weight", ".weight_scale")) for n in found if n.endswith("proj.weight")):
            if name not in stored or stored[name].dtype != torch.float8_e4m3fn:
                continue
            codes = np.frombuffer(found[name].raw_data, np.uint8).reshape(tuple(found[name].dims))
            np.testing.assert_array_equal(codes, stored[name].t().contiguous().view(torch.uint8).numpy(), name)
            held = np.frombuffer(found[f"{name}_scale"].raw_data, np.uint16).astype(np.uint32) << 16
            assert float(held.view(np.float32)[0]) == pytest.approx(float(stored[scale]), rel=2**-8)
