"""An export that is stopped, repeated, extended or pointed at the wrong folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from damage import contents, flip_byte, forget, interrupt, snapshot, transformer_file
from processes import start
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError
from motedge.export.job import ExportOptions, ExportReport, export_bundle
from motedge.export.journal import JOURNAL
from motedge.export.shapes import SHAPE_SETS, ShapeSet
from motedge.export.variants import parse_variants

UND = "graphs/und_prefill.primitive-fp32.onnx"
GEN = "graphs/gen_step.primitive-fp32.onnx"
VAE = "graphs/vae_encoder.primitive-fp32.onnx"
GEN_DATA = "graphs/weights/gen_step.fp32.data"


def export(
    checkpoint: Path,
    out: Path,
    variants: str = "primitive-fp32",
    *,
    samples: str = "auto",
    shapes: ShapeSet = MINI,
) -> ExportReport:
    return export_bundle(Checkpoint.open(checkpoint), out, ExportOptions(shapes, parse_variants(variants), samples))


@pytest.fixture
def edge(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["edge"]


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A finished fp32 bundle of Edge, to be worked on."""
    return Path(shutil.copytree(bundles["edge"], tmp_path / "bundle"))


@pytest.fixture
def every_variant(full_variants: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(full_variants["edge"], tmp_path / "every"))


def test_a_finished_export_writes_nothing(edge: Path, bundle: Path) -> None:
    before = snapshot(bundle)
    assert export(edge, bundle).written == []
    assert snapshot(bundle) == before


def test_a_missing_file_alone_is_made_again(edge: Path, bundle: Path) -> None:
    before = snapshot(bundle)
    for name in (GEN_DATA, "tables/inv_freq.bin", "contracts/gen_step.json", "tokenizer/tokenizer.json"):
        (bundle / name).unlink()
        assert export(edge, bundle).written == [name]
        assert contents(bundle) == {name: digest for name, (digest, _) in before.items()}


def test_a_stopped_export_goes_on_where_it_stopped(edge: Path, bundle: Path, bundles: dict[str, Path]) -> None:
    missing = [VAE, GEN_DATA, "samples/tick.npz", "tables/embed_tokens.bin"]
    interrupt(bundle, missing)
    for name in (GEN_DATA, VAE):
        (bundle / (name + ".partial")).write_bytes(b"what a killed process left")
    with pytest.raises(BundleError, match=r"has no manifest\.json") as caught:
        Bundle.open(bundle)
    assert "interrupted" in caught.value.why and "goes on where it stopped" in caught.value.fix
    before = snapshot(bundle)
    assert sorted(export(edge, bundle).written) == sorted(missing)
    after = snapshot(bundle)
    kept = before.keys() - {JOURNAL} - {name for name in before if name.endswith(".partial")}
    assert all(after[name] == before[name] for name in kept)
    assert contents(bundle) == contents(bundles["edge"])


def test_a_stop_while_weights_are_written_leaves_no_half_file(
    edge: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the main thread, while the other one writes."""
    interrupt(bundle, [GEN_DATA])
    writing, seen = bundle / (GEN_DATA + ".partial"), []

    def stop(*arguments: Any) -> None:
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            seen.extend([writing] if writing.exists() else [])
        raise KeyboardInterrupt

    _slow_weights(monkeypatch)
    monkeypatch.setattr("motedge.export.describe.graph_facts", stop)
    with pytest.raises(KeyboardInterrupt):
        export(edge, bundle)
    assert seen and not list(bundle.rglob("*.partial"))
    assert not (bundle / "manifest.json").exists() and not (bundle / GEN_DATA).exists()


def _slow_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from motedge.export import weights

    load = weights.load_weight

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return load(*arguments)

    monkeypatch.setattr(weights, "load_weight", slow)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["sigint", "sigkill"])
def test_a_real_process_that_is_stopped_half_way(
    number: int, code: int, edge: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    out, shapes = tmp_path / "out", tmp_path / "mini.toml"
    shapes.write_text(_toml(MINI))
    command = [sys.executable, "-m", "motedge", "export", str(edge), "--out", str(out), "--shape-set", str(shapes)]
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while not _finished(out, UND) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, log
    if number == signal.SIGINT:
        assert "interrupted" in log and not list(out.rglob("*.partial"))
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(out)
    before = snapshot(out)
    done = json.loads((out / JOURNAL).read_text())["files"]
    assert UND in done and GEN not in done
    report = export(edge, out)
    after = snapshot(out)
    assert not set(report.written) & done.keys()
    assert all(after[name] == before[name] for name in done)
    assert contents(out) == contents(bundles["edge"])


def _toml(shapes: ShapeSet) -> str:
    fields = {**vars(shapes), "canvas": list(shapes.canvas), "content": list(shapes.content)}
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in fields.items())


def _finished(out: Path, name: str) -> bool:
    journal = out / JOURNAL
    return journal.exists() and name in json.loads(journal.read_text())["files"]


def test_a_variant_is_added_and_the_others_stay(
    edge: Path, every_variant: Path, full_variants: dict[str, Path]
) -> None:
    """Its weights are there already, of the other fp16 variant: one ONNX file is all that comes."""
    new = forget(every_variant, "vae_encoder", "fused-fp16")
    before = snapshot(every_variant)
    assert export(edge, every_variant, "fused-fp16", samples="graphs").written == [new]
    after = snapshot(every_variant)
    assert all(after[name] == before[name] for name in before if name != "manifest.json")
    assert Bundle.open(every_variant).manifest == Bundle.open(full_variants["edge"]).manifest
    assert contents(every_variant)[new] == contents(full_variants["edge"])[new]


def test_samples_that_are_there_stay_when_fewer_are_asked_for(edge: Path, bundle: Path) -> None:
    before = snapshot(bundle)
    for mode in ("graphs", "none"):
        assert export(edge, bundle, samples=mode).written == []
        assert snapshot(bundle) == before


def test_samples_can_be_added_later(edge: Path, every_variant: Path) -> None:
    assert "none" in Bundle.open(every_variant).manifest.samples["tick"]
    assert export(edge, every_variant).written == ["samples/tick.npz"]
    manifest = Bundle.open(every_variant).manifest
    assert (
        manifest.samples["tick"]["file"] == "samples/tick.npz" and "fused-bf16" in manifest.graphs["gen_step"].variants
    )


def test_what_a_stopped_export_made_beyond_the_next_one_is_removed(
    edge: Path, every_variant: Path, bundles: dict[str, Path]
) -> None:
    """All variants, stopped; then one: the folder ends up as if only that one had ever been asked for."""
    stray = every_variant / "mine.partial"
    stray.write_text("not of this program")
    interrupt(every_variant)
    assert export(edge, every_variant).written == ["samples/tick.npz"]
    assert stray.read_text() == "not of this program"
    stray.unlink()
    assert contents(every_variant) == contents(bundles["edge"])


@pytest.mark.parametrize("damage", ["", "[]", '{"files": []}', '{"files": {"../outside": {}}}', '{"files": {"a": {}}}'])
def test_a_damaged_record_starts_over(
    damage: str, edge: Path, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outside").write_text("mine")
    (bundle / JOURNAL).write_text(damage)
    assert export(edge, bundle).written == []  # the manifest knows the files
    assert "damaged" in caplog.text
    assert (tmp_path / "outside").read_text() == "mine" and not (bundle / JOURNAL).exists()


def test_another_checkpoint_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "edge", "policy-droid", "tiny", seed=8)
    before = snapshot(bundle)
    with pytest.raises(BundleError, match="bundle of another checkpoint") as caught:
        export(other, bundle)
    assert "--out" in caught.value.fix and snapshot(bundle) == before


@pytest.mark.parametrize("shapes", [SHAPE_SETS["droid"], ShapeSet(**{**vars(MINI), "max_actions": 17})])
def test_another_shape_set_is_refused(shapes: ShapeSet, edge: Path, bundle: Path) -> None:
    before = snapshot(bundle)
    with pytest.raises(BundleError, match="exported for another shape set"):
        export(edge, bundle, shapes=shapes)
    assert snapshot(bundle) == before


def test_a_checkpoint_folder_is_not_touched(edge: Path, bundle: Path) -> None:
    before = snapshot(edge)
    export(edge, bundle)
    assert snapshot(edge) == before and os.access(transformer_file(edge), os.R_OK)


def test_a_changed_file_is_caught_and_comes_back_once_deleted(edge: Path, bundle: Path) -> None:
    good = contents(bundle)
    flip_byte(bundle / GEN_DATA)
    with pytest.raises(BundleError, match="differs from what was exported"):
        Bundle.open(bundle).check_files()
    (bundle / GEN_DATA).unlink()
    assert export(edge, bundle).written == [GEN_DATA]
    Bundle.open(bundle).check_files()
    assert contents(bundle) == good


def test_a_checkpoints_own_folder_is_no_place_for_its_bundle(edge: Path) -> None:
    before = snapshot(edge)
    with pytest.raises(BundleError, match="holds a checkpoint"):
        export(edge, edge)
    assert snapshot(edge) == before
