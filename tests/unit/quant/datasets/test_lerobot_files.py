"""LeRobot data sets whose files and meta disagree: the files decide, and what is not there is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from lerobot_made import CAMERA, brightness, rows, write_table, write_v3, write_v21, write_video

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.lerobot import LeRobotDataset
from motedge.quant.datasets.open import open_dataset

META = "meta/episodes/chunk-000/file-000.parquet"
VIEWS = {"wrist": "wrist_image_left", "left": "exterior_image_1_left", "right": "exterior_image_2_left"}


def _change(path: Path, **columns: Any) -> None:
    """Rewrites a table with other columns; None leaves one out."""
    table = {**pq.read_table(path).to_pydict(), **columns}
    write_table(path, {name: values for name, values in table.items() if values is not None})


def _mean(dataset: LeRobotDataset, group: str, index: int, view: str = "wrist") -> float:
    return float(dataset.observation(Moment(group, index)).views[view].mean())


def test_each_camera_is_seen_in_its_own_place(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(5,))
    for number, camera in enumerate(VIEWS.values()):
        write_video(root / f"videos/chunk-000/observation.image.{camera}/episode_000000.mp4", range(5), 70 * number)
    (root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").unlink()
    dataset = open_dataset(root)
    assert dataset.notes == ()
    for number, view in enumerate(VIEWS):
        assert abs(_mean(dataset, "0", 3, view) - brightness(3) - 70 * number) < 3, view


def test_episodes_in_several_video_files(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set")
    write_video(root / f"videos/{CAMERA}/chunk-002/file-001.mp4", range(25, 34))
    place = {"chunk_index": [0, 2], "file_index": [0, 1], "from_timestamp": [0.0, 0.0], "to_timestamp": [1.2, 0.9]}
    _change(root / META, **{f"videos/{CAMERA}/{name}": values for name, values in place.items()})
    dataset = open_dataset(root)
    assert abs(_mean(dataset, "0", 7) - brightness(7)) < 3
    assert abs(_mean(dataset, "1", 7) - brightness(32)) < 3


def test_depth_and_right_eyes_are_not_taken(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(4,))
    for name in ("observation.images.wrist_depth", "observation.images.a_wrist_right"):
        write_video(root / f"videos/chunk-000/{name}/episode_000000.mp4", range(20, 24))
    dataset = open_dataset(root)
    assert abs(_mean(dataset, "0", 2) - brightness(2)) < 3
    assert any(f"2 cameras fit the wrist view: {CAMERA}" in note for note in dataset.notes)


@pytest.mark.parametrize("write", [write_v21, write_v3])
def test_episodes_whose_videos_were_not_fetched(tmp_path: Path, write, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "set")
    if write is write_v21:
        (root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    else:
        _change(root / META, **{f"videos/{CAMERA}/file_index": [0, 5]})
    dataset = open_dataset(root)
    assert {moment.group for moment in dataset.moments()} == {"0"}
    assert "1 episodes lack a video" in caplog.text
    assert "1 of 2 episodes lack a video and are left out" in dataset.notes


@pytest.mark.parametrize("field", ["chunk_index", "file_index", "from_timestamp"])
@pytest.mark.parametrize("values", [None, [None, None]], ids=["absent", "null"])
def test_meta_that_does_not_say_where_an_episode_lies(tmp_path: Path, field: str, values: list | None) -> None:
    root = write_v3(tmp_path / "set")
    _change(root / META, **{f"videos/{CAMERA}/{field}": values})
    with pytest.raises(DataError, match="where episode 0 lies in the wrist camera's video is not said"):
        open_dataset(root)


def test_one_episode_and_one_video_need_no_meta(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", lengths=(12,))
    (root / META).unlink()
    assert abs(_mean(open_dataset(root), "0", 8) - brightness(8)) < 3
    write_video(root / f"videos/{CAMERA}/chunk-000/file-001.mp4", range(4))
    with pytest.raises(DataError, match="is not said"):
        open_dataset(root)


def test_an_episode_in_two_tables(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", lengths=(12,))
    whole = rows(0, 12, note=["x"] * 12)
    # Later rows in the earlier file, and a column of texts that is of no use here
    write_table(root / "data/chunk-000/file-000.parquet", {name: values[5:] for name, values in whole.items()})
    write_table(root / "data/chunk-000/file-001.parquet", {name: values[:5] for name, values in whole.items()})
    dataset = open_dataset(root)
    assert len(dataset.moments()) == 12
    for index in (0, 4, 5, 11):
        seen = dataset.observation(Moment("0", index))
        assert seen.joint_position[0] == pytest.approx(index / 100)
        assert abs(float(seen.views["wrist"].mean()) - brightness(index)) < 3
    write_table(root / "data/chunk-000/file-001.parquet", rows(0, 5, **{"observation.state": None}))
    with pytest.raises(DataError, match="different columns"):
        open_dataset(root).observation(Moment("0", 0))


def test_rows_without_a_time(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(3,))
    write_table(root / "data/chunk-000/episode_000000.parquet", rows(0, 3, timestamp=[0.0, None, 0.2]))
    with pytest.raises(DataError, match="column timestamp has rows without a value"):
        open_dataset(root)


def test_a_state_that_the_policy_refuses_is_placed(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(3,))
    state = [[0, 0, 0, -2, 0, 2, 0, grip] for grip in (0.0, 7.0, 1.0)]
    write_table(root / "data/chunk-000/episode_000000.parquet", rows(0, 3, **{"observation.state": state}))
    with pytest.raises(DataError, match="set, episode 0, frame 1: the policy can't take it") as caught:
        open_dataset(root).observation(Moment("0", 1))
    assert "gripper" in str(caught.value)


def test_info_names_the_axes_of_the_state(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set")
    names = {"motors": ["x", "y", "z", "roll", "pitch", "yaw", "gripper", "gripper"]}
    info = {"features": {"observation.state": {"dtype": "float32", "shape": [8], "names": names}}}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="holds no joint angles"):
        open_dataset(root).observation(Moment("0", 0))
    (root / "meta/info.json").write_text("{broken")
    assert open_dataset(root).observation(Moment("0", 0)).gripper_position == 0.25


def test_of_several_annotations_the_first(tmp_path: Path) -> None:
    """As in training, where one of them is drawn."""
    root = write_v3(tmp_path / "set", task=" | put it in | place it there")
    assert open_dataset(root).observation(Moment("0", 0)).instruction == "put it in"


def test_tasks_by_row(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", lengths=(3,))
    lines = [json.dumps({"task_index": number, "task": text}) for number, text in enumerate(("open", "close"))]
    (root / "meta/tasks.jsonl").write_text("\n".join(lines))
    table = root / "data/chunk-000/episode_000000.parquet"
    write_table(table, rows(0, 3, task_index=[0, 1, 2]))
    dataset = open_dataset(root)
    assert [dataset.observation(Moment("0", index)).instruction for index in (0, 1)] == ["open", "close"]
    with pytest.raises(DataError, match="frame 2 has no task text"):
        dataset.observation(Moment("0", 2))
    write_table(table, rows(0, 3, task_index=None))
    with pytest.raises(DataError, match="does not say which task"):
        open_dataset(root).observation(Moment("0", 0))
    (root / "meta/tasks.jsonl").write_text(lines[1])
    assert open_dataset(root).observation(Moment("0", 0)).instruction == "close"


def test_states_are_read_once_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import motedge.quant.datasets.lerobot as lerobot

    calls = []
    read = lerobot.read_states
    monkeypatch.setattr(lerobot, "read_states", lambda *a, **k: calls.append(1) or read(*a, **k))
    dataset = open_dataset(write_v3(tmp_path / "set"))
    for index in range(5):
        for group in ("0", "1"):
            dataset.observation(Moment(group, index))
    assert len(calls) == 2 and dataset.notes
