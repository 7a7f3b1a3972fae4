"""LeRobot data sets: the right picture and state of each moment, and what is said about damaged ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from lerobot_made import CAMERA, brightness, rows, write_table, write_v3, write_v21

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.franka import flange_pose, follow_pose, pose_from_xyz_rpy
from motedge.quant.datasets.open import open_dataset

REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(Path(__file__).resolve().parents[5] / "shared" / "data")))
EPISODE = REAL_DATA / "droid_lerobot_example"
needs_episode = pytest.mark.skipif(
    not EPISODE.is_dir(), reason="no droid_lerobot_example; name its parent with MOTEDGE_REAL_DATA"
)


@pytest.mark.parametrize(("write", "kind"), [(write_v3, "lerobot v3"), (write_v21, "lerobot v2.1")])
def test_every_moment_has_its_own_picture_and_state(tmp_path: Path, write, kind: str) -> None:
    dataset = open_dataset(write(tmp_path / "set"))
    assert dataset.kind == kind
    assert len(dataset.moments()) == 21
    assert dataset.notes == ("2 of 3 cameras are missing: left, right",)
    for group, index in (("0", 0), ("0", 11), ("1", 0), ("1", 5), ("1", 8)):
        seen = dataset.observation(Moment(group, index))
        number = index + (12 if group == "1" else 0)
        assert abs(float(seen.views["wrist"].mean()) - brightness(number)) < 3, (group, index)
        assert seen.joint_position[0] == pytest.approx(index / 100)
        assert (seen.gripper_position, seen.instruction) == (0.25, "open the drawer")


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set")
    first = open_dataset(root).fingerprint()
    assert open_dataset(root).fingerprint() == first
    assert open_dataset(root, instruction="close it").fingerprint() != first
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "other"}\n')
    assert open_dataset(root).fingerprint() != first


def test_an_instruction_takes_the_place_of_the_task(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", task=" |  | ")
    with pytest.raises(DataError, match="no task text") as caught:
        open_dataset(root).observation(Moment("0", 0))
    assert "--instruction" in str(caught.value)
    assert open_dataset(root, instruction="go").observation(Moment("0", 0)).instruction == "go"


def test_a_truncated_video_names_the_file(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set")
    video = root / f"videos/{CAMERA}/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[:300])
    with pytest.raises(DataError, match=r"file-000\.mp4"):
        open_dataset(root).observation(Moment("1", 3))


def test_a_video_that_ends_too_early(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set")
    folder = root / f"videos/chunk-000/{CAMERA}"
    write_table(root / "data/chunk-000/episode_000000.parquet", rows(0, 40))
    with pytest.raises(DataError, match=r"episode_000000\.mp4 has no picture at 3\.50 s"):
        open_dataset(root).observation(Moment("0", 35))
    (folder / "episode_000001.mp4").unlink()
    with pytest.raises(DataError, match="episode 1 has no video of the wrist camera"):
        open_dataset(root).observation(Moment("1", 0))


def test_pictures_of_the_next_episode_are_not_taken(tmp_path: Path) -> None:
    """A table that is longer than its stretch of a shared video."""
    root = write_v3(tmp_path / "set")
    longer = [rows(0, 15), rows(1, 9)]
    joined = {name: [value for episode in longer for value in episode[name]] for name in longer[0]}
    write_table(root / "data/chunk-000/file-000.parquet", joined)
    dataset = open_dataset(root)
    dataset.observation(Moment("0", 11))
    with pytest.raises(DataError, match="has no picture of episode 0, frame 13"):
        dataset.observation(Moment("0", 13))
    with pytest.raises(DataError, match="no frame 15"):
        dataset.observation(Moment("0", 15))
    with pytest.raises(DataError, match="episode '7'"):
        dataset.observation(Moment("7", 0))


def test_rows_in_any_order(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(6,))
    table = rows(0, 6)
    write_table(root / "data/chunk-000/episode_000000.parquet", {k: v[::-1] for k, v in table.items()})
    seen = open_dataset(root).observation(Moment("0", 4))
    assert seen.joint_position[0] == pytest.approx(0.04)
    assert abs(float(seen.views["wrist"].mean()) - brightness(4)) < 3


def test_a_video_that_meta_names_and_is_not_there(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set")
    (root / f"videos/{CAMERA}/chunk-000/file-000.mp4").rename(root / f"videos/{CAMERA}/chunk-000/file-007.mp4")
    with pytest.raises(DataError, match=r"file-000\.mp4 is missing"):
        open_dataset(root).observation(Moment("0", 0))


@pytest.mark.parametrize("text", ['{"task": "x"}', "not json"])
def test_damaged_tasks(tmp_path: Path, text: str) -> None:
    root = write_v21(tmp_path / "set")
    (root / "meta/tasks.jsonl").write_text(text + "\n")
    with pytest.raises(DataError, match="task"):
        open_dataset(root).observation(Moment("0", 0))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": None}, "no column timestamp"),
        ({"observation.state": None}, "no column observation.state.joint_positions"),
        ({"observation.state": [[0.0] * 5] * 12}, "wrong width"),
        ({"observation.state": [["x"] * 8] * 12}, "holds no numbers"),
    ],
)
def test_missing_and_wrong_columns(tmp_path: Path, columns: dict, message: str) -> None:
    root = write_v21(tmp_path / "set", lengths=(12,))
    write_table(root / "data/chunk-000/episode_000000.parquet", rows(0, 12, **columns))
    with pytest.raises(DataError, match=message):
        open_dataset(root).observation(Moment("0", 0))


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set at"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="an empty folder"):
        open_dataset(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="holds no episode"):
        open_dataset(tmp_path)
    write_table(tmp_path / "data/chunk-000/episode_000000.parquet", rows(0, 0))
    with pytest.raises(DataError, match="is empty"):
        open_dataset(tmp_path)
    write_table(tmp_path / "data/chunk-000/episode_000000.parquet", rows(0, 3))
    with pytest.raises(DataError, match="no camera that the policy knows"):
        open_dataset(tmp_path)
    (tmp_path / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a table"):
        open_dataset(tmp_path)


def test_arm_kinematics() -> None:
    """Following a pose brings the flange there, from a start nearby."""
    joints = np.array([0.1, -0.4, 0.4, -2.4, 0.0, 2.0, 0.6])
    goal = flange_pose(joints + 0.05)
    np.testing.assert_allclose(flange_pose(follow_pose(joints, goal)), goal, atol=1e-6)
    with pytest.raises(ValueError, match="can't follow"):
        goal[:3, 3] = 9
        follow_pose(joints, goal)


@needs_episode
def test_solved_joints_reach_the_measured_pose() -> None:
    import pyarrow.parquet as pq

    dataset = open_dataset(EPISODE, instruction="pick it up")
    assert len(dataset.moments()) == 722
    seen = dataset.observation(Moment("0", 721))
    table = pq.read_table(next((EPISODE / "data").rglob("*.parquet")))
    measured = np.array(table["observation.state.cartesian_position"][721].as_py())
    np.testing.assert_allclose(flange_pose(seen.joint_position.astype(float)), pose_from_xyz_rpy(measured), atol=1e-5)
    assert any("solved" in note for note in dataset.notes) and any("wrist, left" in note for note in dataset.notes)
