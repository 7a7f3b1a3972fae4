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


def test_arm_kinematics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following a pose brings the flange there, from a start nearby."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    arm = pytest.importorskip("franka_arm")
    joints = np.array([0.1, -0.4, 0.4, -2.4, 0.0, 2.0, 0.6])
    goal = arm.flange_pose(joints + 0.05)
    np.testing.assert_allclose(arm.flange_pose(arm.follow_pose(joints, goal)), goal, atol=1e-6)
    with pytest.raises(ValueError, match="can't follow"):
        goal[:3, 3] = 9
        arm.follow_pose(joints, goal)


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
    assert ("solved from the measured poses" in observation.source) == (frame > 0)


@needs_episode
def test_solved_joints_reach_the_measured_pose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    arm, frames = pytest.importorskip("franka_arm"), pytest.importorskip("lerobot_frame")
    table = parquet.read_table(next((EPISODE / "data").rglob("*.parquet")))
    joints, _ = frames.joint_state(table, 721)
    measured = np.array(table["observation.state.cartesian_position"][721].as_py())
    np.testing.assert_allclose(arm.flange_pose(joints), arm.pose_from_xyz_rpy(measured), atol=1e-5)


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
