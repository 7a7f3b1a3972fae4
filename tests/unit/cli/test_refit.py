"""`motedge refit`: which weights it takes, and what it says of those that it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from builder_graphs import make_bundle

from motedge.cli.main import main
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.gate import this_platform
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import load_target
from motedge.targets.refit import job
from motedge.targets.refit.job import RefitReport

TARGET = "h200"


def _engine(**changes: Any) -> EngineFile:
    entry = EngineFile(
        graph="gen_step",
        variant="primitive-fp16",
        file="gen_step.engine",
        bytes=3,
        sha256="0" * 64,
        builder="tensorrt",
        builder_version="11.4.1.5",
        compute_capabilities=("9.0",),
        platform=this_platform(),
        created="2026-01-01T00:00:00+00:00",
        seconds=1.25,
        peak_memory_bytes=1,
        peak_anonymous_bytes=None,
        device_memory_bytes=1,
        settings=BuildSettings(refittable=True).to_dict(),
        source="s",
        refittable=True,
    )
    return dataclasses.replace(entry, **changes)


def _record(root: Path, *engines: EngineFile) -> EngineFiles:
    folder = root / "engines" / TARGET
    folder.mkdir(parents=True, exist_ok=True)
    files = EngineFiles(folder, TARGET, engines)
    (folder / BUILD_FILE).write_text(json.dumps(files.to_dict()))
    return files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle", ("primitive-fp16", "fused-fp16-fp8"))
    _record(tmp_path / "bundle", _engine())
    return tmp_path / "bundle"


def _refit(root: Path, weights: object, *options: object) -> int:
    return main(["refit", str(root), "--weights", str(weights), "--target", TARGET, *map(str, options)])


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ("dcp", [], "--base CHECKPOINT; or motedge checkpoint convert"),
        ("lora.safetensors", [], "--base CHECKPOINT; or motedge checkpoint merge"),
        ("adapter", [], "is an adapter"),
        ("folder", ["--base", "b"], "--base is for adapters"),
        ("folder", [], "give the folder that holds transformer"),
    ],
)
def test_weights_in_other_forms(
    root: Path, tmp_path: Path, weights: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("dcp", ".metadata"), ("adapter", "adapter_config.json"), ("folder", "readme")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    out = tmp_path / "out"
    assert _refit(root, tmp_path / weights, "--out", out, *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists() and not out.with_name("out.checkpoint").exists()
    # Without a place for its bundle, no form of a checkpoint is taken
    assert _refit(root, tmp_path / weights) == 2
    assert "--out BUNDLE2 exports it" in capsys.readouterr().err


def test_options_that_do_not_go_together(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--out", "--base"):
        assert _refit(root, root, option, tmp_path / "x") == 2
        assert f"{option} is for checkpoints" in capsys.readouterr().err
    assert _refit(root, tmp_path, "--out", tmp_path / "x", "--dry-run") == 2
    assert main(["refit", str(root), "--weights", str(root), "--target", "jetson-thor"]) == 2


def test_what_can_be_told_before_an_export_is(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _refit(root, tmp_path, "--out", tmp_path / "x", "--graphs", "gen_stp") == 2
    assert "did you mean 'gen_step'" in capsys.readouterr().err
    _record(root, _engine(refittable=False, settings=BuildSettings().to_dict()))
    assert _refit(root, tmp_path, "--out", tmp_path / "x") == 2
    assert "--refittable, once" in capsys.readouterr().err
    _record(root, _engine(variant="fused-fp16-fp8"))
    assert _refit(root, tmp_path, "--out", tmp_path / "x") == 2
    said = capsys.readouterr().err
    assert "is quantized (fp8)" in said and "motedge quantize" in said
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_that_is_in_the_way_stays(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.checkpoint").mkdir()
    (tmp_path / "x.checkpoint" / "mine").write_text("")
    (tmp_path / "lora.safetensors").write_text("")
    assert _refit(root, tmp_path / "lora.safetensors", "--out", tmp_path / "x", "--base", tmp_path) == 2
    assert "is in the way" in capsys.readouterr().err
    assert (tmp_path / "x.checkpoint" / "mine").exists()


def test_what_is_printed(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = _record(root, _engine())
    planned = dataclasses.make_dataclass("Planned", ["file"])("gen_step.engine")

    def plan(*args: Any, **named: Any) -> list[Any]:
        assert args[2] == load_target(TARGET) and named["trust_host_code"]
        return [job.Refit(files.engines[0], planned, None, root, root, False)]  # type: ignore[arg-type]

    def refit(*args: Any, **named: Any) -> RefitReport:
        return RefitReport(files, written=list(files.engines))

    monkeypatch.setattr(job, "plan_refit", plan)
    monkeypatch.setattr(job, "refit_engines", refit)
    assert _refit(root, root, "--dry-run", "--trust-host-code") == 0
    assert capsys.readouterr().out == "to refit    gen_step.engine\n"
    assert _refit(root, root, "--dry-run", "--json", "--trust-host-code") == 0
    assert json.loads(capsys.readouterr().out)["engines"][0]["up_to_date"] is False
    assert _refit(root, root, "--trust-host-code") == 0
    assert capsys.readouterr().out == "gen_step.engine: 3 B, 1.2 s\n"
    assert _refit(root, root, "--json", "--trust-host-code") == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["gen_step.engine"]
    monkeypatch.setattr(job, "refit_engines", lambda *args, **named: RefitReport(files, skipped=list(files.engines)))
    assert _refit(root, root, "--trust-host-code") == 0
    assert "up to date" in capsys.readouterr().out
