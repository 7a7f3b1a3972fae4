from __future__ import annotations

import json
from pathlib import Path

import pytest

from motedge.cli.main import main


def test_shows_everything(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(small_bundle)]) == 0
    out = capsys.readouterr().out
    assert "edge policy-droid, revision not recorded" in out
    assert "canvas 544x736" in out
    assert "guidance_interval 960x1001" not in out
    assert "guidance_interval 960 to 1001" in out
    assert "primitive-fp32" in out
    assert "123,456" in out
    assert "4.00 kB" in out
    assert "none: not enough memory" in out
    assert "fp16 left out" in out


def test_the_model_is_not_called_after_another_embodiment(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((small_bundle / "manifest.json").read_text())
    manifest["policy"]["embodiment"] = "av"
    (small_bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["inspect", str(small_bundle)]) == 0
    assert "model      edge policy, revision" in capsys.readouterr().out


def test_json_counts_shared_files_once(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(small_bundle), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["schema"] == "motedge.inspect/v1"
    variants = {v["variant"]: v for v in summary["variants"]}
    assert variants["primitive-fp32"]["bytes"] == 4000
    assert variants["fused-bf16"]["nodes"] is None
    on_disk = sum(p.stat().st_size for p in small_bundle.rglob("*") if p.is_file() and p.name != "manifest.json")
    assert summary["total"]["bytes"] == on_disk
    assert "check" not in summary


def test_check_passes_and_names_unlisted_files(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_bundle / "graphs" / "left.onnx.partial").write_bytes(b"x")
    assert main(["inspect", str(small_bundle), "--check", "--json"]) == 0
    check = json.loads(capsys.readouterr().out)["check"]
    assert check == {"ok": True, "damage": [], "unlisted_files": ["graphs/left.onnx.partial"]}


def test_check_names_every_damaged_file(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_bundle / "tables" / "inv_freq.bin").write_bytes(b"\x01" * 256)
    (small_bundle / "samples" / "gen_step.npz").unlink()
    assert main(["inspect", str(small_bundle), "--check"]) == 1
    captured = capsys.readouterr()
    assert "check      2 problems" in captured.out
    assert "tables/inv_freq.bin differs from what was exported" in captured.err
    assert "samples/gen_step.npz is missing" in captured.err


def test_check_finds_a_path_that_leads_outside(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../secret"] = {"sha256": "0", "bytes": 1, "role": "table"}
    path.write_text(json.dumps(manifest))
    assert main(["inspect", str(small_bundle), "--check"]) == 1
    assert "points outside its folder" in capsys.readouterr().err


def test_a_file_of_a_bundle(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, fix in (
        ("manifest.json", f"give its folder: {small_bundle}"),
        ("samples/gen_step.npz", "motedge export"),
    ):
        assert main(["inspect", str(small_bundle / name)]) == 2
        said = capsys.readouterr().err
        assert "got:      a file" in said and fix in said


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("motedge: error: there is no bundle at")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("files", "graphs/weights/gen_step.fp32.data"), "is not in the manifest's list of files"),
        (("tables", "inv_freq", "dtype"), "table 'inv_freq' lacks dtype"),
        (("samples", "tick", "none"), "sample 'tick' says neither where it is nor why it is absent"),
        (("graphs", "gen_step", "variants", "fused-bf16", "opset"), "Variant lacks a field"),
        (("model",), "Manifest lacks a field"),
    ],
)
def test_manifest_that_lacks_something(
    keys: tuple[str, ...], text: str, small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    holder = manifest
    for key in keys[:-1]:
        holder = holder[key]
    del holder[keys[-1]]
    path.write_text(json.dumps(manifest))
    assert main(["inspect", str(small_bundle)]) == 2
    assert text in capsys.readouterr().err
