"""`motedge build` on the command line: arguments, texts, exit codes; what is built is faked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder_graphs import make_bundle

from motedge.cli.main import main
from motedge.errors import HostError
from motedge.targets.builders import job
from motedge.targets.builders.builder import BuildError, BuiltEngine
from motedge.targets.builders.memory_watch import MemoryPeak

RAISED = {"kind": "matrix_multiply", "asked": "fp16 x fp16", "got": "fp32 x fp32", "where": "the graph says so"}


class _Builder:
    name, suffix = "tensorrt-rtx", ".engine"

    def version(self) -> str:
        return "1.7.1"

    def dialects(self) -> tuple[str, ...]:
        return ("fused", "primitive")

    def row(self) -> None:
        return None

    def check(self, target: Any, settings: Any) -> tuple[str, ...]:
        return ("8.9",)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def build(name: str, request: Any, progress: Any) -> Any:
        request.out.write_bytes(b"engine")
        raised = tuple({"layer": f"layer {index}", **RAISED} for index in range(7))
        return BuiltEngine(None, {}, raised, notes=("a note",)), MemoryPeak(2_000_000, None), 3.0

    monkeypatch.setattr(job, "builder_for", lambda target, name: _Builder())
    monkeypatch.setattr(job, "build_in_child", build)
    return make_bundle(tmp_path / "bundle").root


def test_build_and_up_to_date(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle), "--target", "rtx-4090"]) == 0
    out = capsys.readouterr().out
    assert "gen_step.fused-fp16.sm89.tensorrt-rtx-1.7.1.engine: 6 B, 3.0 s, peak memory 2.00 MB" in out
    assert "layer 0: fp32 x fp32, asked fp16 x fp16 (the graph says so)" in out
    assert "and 2 more layers" in out
    assert "a note" in out
    assert main(["build", str(bundle), "--target", "rtx-4090"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_dry_run_writes_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle), "--target", "rtx-4090", "--dry-run", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["engines"]
    assert (row["graph"], row["up_to_date"]) == ("gen_step", False)
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--target", "rtx-4080"], 2, "did you mean 'rtx-4090'"),
        (["--target", "rtx-4090", "--graphs", "gen"], 2, "gen_step"),
        (["--target", "rtx-4090", "--optimization-level", "9"], 2, "expected: 0 to 5"),
        (["--target", "rtx-4090", "--recipe", "fp7"], 2, "no graph of the bundle is quantized"),
    ],
)
def test_bad_arguments(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert main(["build", str(bundle), *arguments]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(HostError("no memory"), 3), (BuildError("refused"), 2)])
def test_failures(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(job, "build_in_child", fail)
    assert main(["build", str(bundle), "--target", "rtx-4090"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(error) in captured.err
    assert not (bundle / "engines/rtx-4090").exists()
