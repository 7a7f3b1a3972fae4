"""The examples: a drawn scene, and frames of a real dataset where that is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from motedge.runtime.policy.observation_folder import read_observation

ROOT = Path(__file__).resolve().parents[3]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
EPISODE = REAL_DATA / "droid_lerobot_example"

pytest.importorskip("PIL")
needs_episode = pytest.mark.skipif(
    not EPISODE.is_dir(), reason="no droid_lerobot_example; name its parent with MOTEDGE_REAL_DATA"
)


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_drawn_scene(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        done = run_example("draw_scene.py", "--out", str(tmp_path / folder), "--seed", "3")
        assert done.returncode == 0, done.stderr
    first, second = read_observation(tmp_path / "a"), read_observation(tmp_path / "b")
    assert sorted(first.views) == ["left", "right", "wrist"]
    for name, image in first.views.items():
        assert image.shape == (360, 640, 3)
        assert image.std() > 20
        np.testing.assert_array_equal(image, second.views[name])
    assert "cube" in first.instruction and "draw_scene.py --seed 3" in first.source


@needs_episode
@pytest.mark.parametrize("frame", [0, 200])
def test_real_frame(tmp_path: Path, frame: int) -> None:
    pytest.importorskip("av")
    options = ["--frame", str(frame), "--instruction", "Pick it up", "--out", str(tmp_path / "seen")]
    done = run_example("lerobot_frame.py", str(EPISODE), *options)
    assert done.returncode == 0, done.stderr
    observation = read_observation(tmp_path / "seen")
    assert list(observation.views) == ["right"]
    assert observation.views["right"].shape == (360, 640, 3) and observation.views["right"].std() > 20
    assert f"frame {frame}" in observation.source
    assert "solved from the measured poses" in observation.source


@needs_episode
@pytest.mark.parametrize(
    ("options", "message"), [(["--frame", "722"], "no such frame"), (["--frame", "3"], "no task text")]
)
def test_frames_that_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    pytest.importorskip("av")
    done = run_example("lerobot_frame.py", str(EPISODE), *options, "--out", str(tmp_path / "seen"))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "seen").exists()
