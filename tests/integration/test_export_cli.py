"""`motedge export` as a user meets it: exit codes, JSON, a plan without writing, messages."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import edit_json, edit_weights, interrupt, snapshot, transformer_file
from tiny import MINI

from motedge.cli.main import main


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command's log goes to the stderr of its test, which ends with it."""
    logger = logging.getLogger("motedge")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    fields = {**vars(MINI), "canvas": list(MINI.canvas), "content": list(MINI.content)}
    path = tmp_path / "mini.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in fields.items()))
    return str(path)


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["edge"], tmp_path / "bundle"))


@pytest.fixture
def edge(checkpoints: dict[str, Path]) -> str:
    return str(checkpoints["edge"])


def test_up_to_date(edge: str, bundle: Path, shapes: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(bundle)
    assert main(["export", edge, "--out", str(bundle), "--shape-set", shapes]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{bundle} is up to date\n"
    assert snapshot(bundle) == before
    assert main(["export", edge, "--out", str(bundle), "--shape-set", shapes, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bundle"] == str(bundle) and result["written"] == [] and result["seconds"]["tables"] >= 0


def test_what_is_written_is_said(edge: str, bundle: Path, shapes: str, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["graphs/weights/gen_step.fp32.data", "samples/tick.npz"]
    interrupt(bundle, missing)
    assert main(["export", edge, "--out", str(bundle), "--shape-set", shapes]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{bundle}: 2 files written\n" and "gen_step.graphs" in captured.err
    interrupt(bundle, missing)
    assert main(["export", edge, "--out", str(bundle), "--shape-set", shapes, "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["written"]) == missing


def test_a_dry_run_writes_nothing(edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", edge, "--out", str(tmp_path / "out"), "--variants", "all", "--dry-run"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "gen_step.bf16.data" in text and "und_prefill.kept-fp32.data" in text and "total" in text
    assert main([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())
    assert plan["files"]["embed_tokens"] == 1024 * 256 * 2 and plan["total_bytes"] > sum(plan["files"].values())


def test_a_dry_run_tells_the_sizes_that_are_written(
    edge: str, full_variants: dict[str, Path], tmp_path: Path, shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", edge, "--out", str(tmp_path / "out"), "--shape-set", shapes, "--variants", "all"]
    assert main([*command, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["files"]
    root = full_variants["edge"]
    for path in (root / "graphs/weights").iterdir():
        assert planned.pop(path.name) == path.stat().st_size
    assert planned == {path.stem: path.stat().st_size for path in (root / "tables").iterdir()}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--variants", "fused-fp6"], "did you mean 'fused-fp16'"),
        (["--variants", ""], "no variant given"),
        (["--shape-set", "driod"], "did you mean 'droid'"),
        (["--shape-set", "missing.toml"], "can't read the shape set missing.toml"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_wrong_option_is_usage(
    options: list[str], dry: list[str], text: str, edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", edge, "--out", str(tmp_path / "out"), *options, *dry]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [[], ["--out"], ["--out", "x", "--samples", "some"], ["--out", "x", "--fast"]])
def test_what_the_parser_refuses(options: list[str], edge: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", edge, *options])
    assert caught.value.code == 2 and capsys.readouterr().err


def test_no_checkpoint_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    assert "no checkpoint folder" in capsys.readouterr().err


def test_an_out_that_is_a_file(edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("kept")
    for dry in ([], ["--dry-run"]):
        assert main(["export", edge, "--out", str(tmp_path / "file"), *dry]) == 2
        assert "is a file, not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_broken_checkpoint(edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(edge, tmp_path / "copy"))
    edit_json(copy / "transformer/config.json", num_hidden_layers=4)
    for dry in ([], ["--dry-run"]):
        assert main(["export", str(copy), "--out", str(tmp_path / "out"), *dry]) == 2
        assert "num_hidden_layers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_checkpoints_bundle(
    checkpoints: dict[str, Path], bundle: Path, shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoints["nano"]), "--out", str(bundle), "--shape-set", shapes]) == 2
    assert "bundle of another checkpoint" in capsys.readouterr().err


def test_a_full_disk_is_the_environments(
    edge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("motedge.files.shutil.disk_usage", lambda path: usage)
    assert main(["export", edge, "--out", str(tmp_path / "out")]) == 3
    assert "too little disk space" in capsys.readouterr().err


def test_missing_packages_name_the_extra(
    edge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    assert main(["export", edge, "--out", str(tmp_path / "out")]) == 3
    captured = capsys.readouterr()
    assert "motedge[export]" in captured.err and "onnx_ir" in captured.err


@pytest.mark.slow
def test_poisoned_weights(edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the first byte to the message, with nothing prepared."""
    copy = Path(shutil.copytree(edge, tmp_path / "copy"))

    def poison(tensors: dict[str, Any]) -> None:
        tensors["proj_in.bias"][3] = float("nan")

    edit_weights(transformer_file(copy), poison)
    assert main(["export", str(copy), "--out", str(tmp_path / "out"), "--samples", "none"]) == 2
    assert "a weight is not finite: proj_in.bias" in capsys.readouterr().err
    assert not (tmp_path / "out/manifest.json").exists() and not list((tmp_path / "out").rglob("*.partial"))
