"""Drives as a LeRobot data set: written, laid out as a published one, read back by motedge, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")
pytest.importorskip("pyarrow", reason="LeRobot data sets need motedge[quant]")
pytest.importorskip("av", reason="LeRobot data sets need motedge[quant]")

import examples_package  # noqa: F401
import pyarrow.parquet as pq

from examples.train_small.data import lerobot_writer
from examples.train_small.data.dataset import RoadData, read_shards
from examples.train_small.data.generate import Settings, generate
from examples.train_small.data.lerobot_writer import LeRobotWriter
from examples.train_small.data.to_lerobot import CAMERA, convert
from motedge.errors import DataError, UsageError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.lerobot import LeRobotDataset
from motedge.quant.datasets.open import open_dataset

ROOT = Path(__file__).resolve().parents[3]
EPISODE = Path(os.environ.get("MOTEDGE_REAL_DATA", ROOT.parent / "shared" / "data")) / "droid_lerobot_example"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    generate(folder, Settings(episodes=3, seconds=2.5, first_seed=100, shard=2))
    return folder


@pytest.fixture(scope="module")
def data(shards: Path) -> RoadData:
    return read_shards(shards)


@pytest.fixture(scope="module")
def written(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lerobot") / "road"
    assert convert(shards, out) == 75
    return out


def test_it_reads_back(written: Path, data: RoadData) -> None:
    dataset = open_dataset(written)
    assert isinstance(dataset, LeRobotDataset) and dataset.kind == "lerobot v3" and dataset.of_vehicle
    assert dataset.notes == () and len(dataset.moments()) == 75
    for frame in (0, 7, 24, 25, 49, 50, 74):
        group, index = divmod(frame, 25)
        seen = dataset.observation(Moment(str(group), index))
        assert seen.image is not None and not seen.has_state
        assert seen.instruction == data.tasks[data.task_index[frame]]
        # h264; frames in turn differ by more
        assert np.abs(seen.image.astype(int) - data.frames[frame]).mean() < 2.0
    columns = dataset.columns("1", ("action", "plan", "world.pose", "world.speed", "index"))
    np.testing.assert_array_equal(np.array(columns["plan"], np.float32), data.plans[25:50])
    np.testing.assert_array_equal(np.array(columns["action"], np.float32), data.plans[25:50, 0])
    np.testing.assert_array_equal(np.array(columns["world.pose"], np.float32), data.poses[25:50])
    np.testing.assert_array_equal(np.array(columns["world.speed"], np.float32), data.speed[25:50])
    assert columns["index"] == list(range(25, 50))
    with pytest.raises(DataError, match="no robot's state"):
        dataset.states("0")
    assert open_dataset(written, instruction="Halt.").observation(Moment("0", 0)).instruction == "Halt."


def test_what_it_says_of_itself(written: Path, data: RoadData) -> None:
    info = json.loads((written / "meta/info.json").read_text(encoding="utf-8"))
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (3, 75, 10)
    assert info["features"][CAMERA]["shape"] == [96, 96, 3] and info["features"]["plan"]["shape"] == [16, 9]
    assert info["features"]["action"]["names"][:3] == ["x", "y", "z"]
    episodes = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(one["dataset_from_index"], one["dataset_to_index"]) for one in episodes] == [(0, 25), (25, 50), (50, 75)]
    assert [one[f"videos/{CAMERA}/from_timestamp"] for one in episodes] == [0.0, 2.5, 5.0]
    assert episodes[1]["tasks"] == [data.tasks[data.task_index[25]]]
    stats = json.loads((written / "meta/stats.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(stats["action"]["mean"], data.plans[:, 0].mean(0), atol=1e-5)
    np.testing.assert_allclose(stats["plan"]["std"], data.plans.astype(np.float64).std(0), atol=1e-6)
    assert np.shape(stats[CAMERA]["mean"]) == (3, 1, 1) and 0 < stats[CAMERA]["mean"][1][0][0] < 1
    # pandas, by which LeRobot looks tasks up, takes the text as the index
    note = json.loads(pq.read_schema(written / "meta/tasks.parquet").metadata[b"pandas"])
    assert note["index_columns"] == ["task"]
    assert pq.read_table(written / "meta/tasks.parquet").column("task").to_pylist() == list(data.tasks)


@pytest.mark.skipif(not EPISODE.is_dir(), reason=f"no {EPISODE.name}; name its folder with MOTEDGE_REAL_DATA")
def test_laid_out_as_a_published_one(written: Path) -> None:
    ours, theirs = (json.loads((root / "meta/info.json").read_text(encoding="utf-8")) for root in (written, EPISODE))
    assert ours.keys() == theirs.keys() and ours["codebase_version"] == theirs["codebase_version"]
    camera = next(feature for feature in theirs["features"].values() if feature["dtype"] == "video")
    assert ours["features"][CAMERA]["info"].keys() == camera["info"].keys()
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert ours["features"][name] == theirs["features"][name]
    for file in ("meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"):
        have, want = pq.read_schema(written / file), pq.read_schema(EPISODE / file)
        missing = {name for name in want.names if not name.startswith(("observation", "action"))} - set(have.names)
        assert not missing, file


def test_new_files_begin_where_one_is_full(
    shards: Path, data: RoadData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_writer, "VIDEO_MB", 0)
    monkeypatch.setattr(lerobot_writer, "DATA_MB", 0)
    convert(shards, tmp_path / "out")
    assert len(list((tmp_path / "out/data").rglob("*.parquet"))) == 3
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 3
    seen = open_dataset(tmp_path / "out").observation(Moment("2", 3))
    assert seen.image is not None and np.abs(seen.image.astype(int) - data.frames[53]).mean() < 2.0


def rewrite(shards: Path, folder: Path, **changes: np.ndarray) -> Path:
    folder.mkdir()
    for path in sorted(shards.glob("*.npz")):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        np.savez(folder / path.name, **{**arrays, **(changes if path.name == "road-00001.npz" else {})})
    return folder


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"plans": np.full((25, 16, 9), np.nan, np.float32)}, "no number to train on"),
        ({"frames": np.zeros((25, 64, 64, 3), np.uint8)}, "frames has the wrong type or shape"),
        ({"task_index": np.full(25, 99, np.int32)}, "unknown task"),
        ({"episode": np.zeros(25, np.int32)}, "episode 0 is there twice"),
    ],
)
def test_what_is_refused(shards: Path, tmp_path: Path, change: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(DataError, match=match):
        convert(rewrite(shards, tmp_path / "spoilt", **change), tmp_path / "out")
    assert not list(tmp_path.glob("out*")), "nothing half-written stays"


def test_other_tasks_and_folders(shards: Path, written: Path, tmp_path: Path) -> None:
    with np.load(shards / "road-00001.npz") as file:
        other = file["tasks"].copy()
    other[1] = "Keep left."
    with pytest.raises(DataError, match="has other tasks"):
        convert(rewrite(shards, tmp_path / "spoilt", tasks=other), tmp_path / "out")
    with pytest.raises(DataError, match="no recordings"):
        convert(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        convert(shards, written)


def test_an_episode_that_does_not_go_with_the_others(tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path, CAMERA, 10, ("go",), {})
    frames, told = np.zeros((5, 96, 96, 3), np.uint8), np.zeros(5, np.int64)
    writer.add(frames, told, {"action": np.zeros((5, 9), np.float32)})
    with pytest.raises(DataError, match="does not go with the others"):
        writer.add(frames[:, :64], told, {"action": np.zeros((5, 9), np.float32)})
    with pytest.raises(DataError, match="does not go with the others"):
        writer.add(frames, told, {"action": np.zeros((4, 9), np.float32)})
    with pytest.raises(DataError, match="unknown task"):
        writer.add(frames, told + 1, {"action": np.zeros((5, 9), np.float32)})
    writer.abandon()
    with pytest.raises(DataError, match="no episode to write"):
        LeRobotWriter(tmp_path, CAMERA, 10, ("go",), {}).close()


def test_the_command(shards: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.train_small.data.to_lerobot", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--shards", str(shards)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path / 'out'}: 75 frames")
    again = subprocess.run([*command, "--shards", str(shards)], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2 and "exists already" in again.stderr and "Traceback" not in again.stderr
