"""motedge bench --dry-run on bundles of manifests alone: what will fail is told, and nothing is made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_scene import made_bundle

from motedge.cli.main import main
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation

pytest.importorskip("PIL")


def test_cells_that_will_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, half = made_bundle(tmp_path / "plain", [None]), made_bundle(tmp_path / "half", ["fp8"], "fused-bf16")
    write_observation(tmp_path / "seen", Observation.of_camera(np.zeros((96, 96, 3), np.uint8), "keep left"))
    how = ["--observations", str(tmp_path / "seen"), "--out", str(tmp_path / "out"), "--dry-run"]
    how += ["--steps", "2", "--step-cache", "steps:1,9"]
    assert main(["bench", str(plain), *how]) == 0
    said = capsys.readouterr().out
    assert "1 cell\n" in said and said.count("left out") == 1 and "will fail" not in said
    assert main(["bench", str(plain), str(half), *how]) == 1
    said = capsys.readouterr().out
    assert "2 cells" in said and "fp8 / shipped, will fail" in said and "no bf16 kernels" in said
    assert "unquantized / shipped\n" in said
    assert main(["bench", str(plain), str(half), *how, "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["cells"]
    assert [row["error"] is None for row in rows] == [True, False]
    assert not (tmp_path / "out").exists()
