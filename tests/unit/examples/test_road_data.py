"""Recorded drives of examples/train_small: what is written, resumed, and refused when read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")

import examples_package  # noqa: F401

from examples.train_small.data.dataset import RoadData, read_shards
from examples.train_small.data.episode import record
from examples.train_small.data.generate import Settings, generate
from examples.train_small.road.expert import ROWS, Expert
from examples.train_small.road.instructions import BEHAVIOURS
from examples.train_small.road.simulator import Simulator
from motedge.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = Settings(episodes=5, seconds=3.0, first_seed=100, shard=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    generate(folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def data(shards: Path) -> RoadData:
    return read_shards(shards)


def test_what_is_read_back(data: RoadData) -> None:
    assert len(data.frames) == 5 * 30 and list(data.seeds) == [100, 101, 102, 103, 104]
    assert np.array_equal(data.plans, data.plans_all[np.arange(len(data.plans)), data.behaviour])
    clips = data.clips()
    assert len(clips) == 5 * (30 - ROWS) and all(data.episode[c] == data.episode[c + ROWS] for c in clips)
    assert len(set(data.behaviour)) > 1


def test_labels_are_the_clean_plan_from_where_the_car_is(data: RoadData) -> None:
    simulator = Simulator()
    episode = int(np.flatnonzero([BEHAVIOURS[b] != "stop" for b in data.behaviour[::30]])[0])
    simulator.reset(int(data.seeds[episode]))
    frames = slice(episode * 30, episode * 30 + 30)
    clean = Expert(simulator.track).plan(data.poses[frames].astype(float), data.behaviour[frames])
    assert np.abs(clean - data.plans[frames]).max() < 1e-3
    # What the disturbed car then did is another thing
    moved = np.diff(data.poses[frames], axis=0)
    assert np.abs(np.hypot(*moved[:, :2].T) - np.hypot(*data.plans[frames][:-1, 0, [0, 2]].T)).max() > 0.02


def test_the_same_seed_is_the_same_drive() -> None:
    simulator = Simulator()
    first = record(simulator, 7, 2.0)
    record(simulator, 8, 2.0)
    again = record(Simulator(), 7, 2.0)
    assert np.array_equal(first.frames, again.frames) and np.array_equal(first.plans_all, again.plans_all)
    assert first.task_index == again.task_index


def test_an_interrupted_run_goes_on(shards: Path, tmp_path: Path) -> None:
    generate(tmp_path, SETTINGS)
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert whole == {path.name: path.read_bytes() for path in shards.glob("*.npz")} and len(whole) == 3
    (tmp_path / "road-00001.npz").unlink()
    untouched = (tmp_path / "road-00000.npz").stat().st_mtime_ns
    generate(tmp_path, SETTINGS)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")} == whole
    assert (tmp_path / "road-00000.npz").stat().st_mtime_ns == untouched
    with pytest.raises(DataError, match="other recordings"):
        generate(tmp_path, replace(SETTINGS, seconds=4.0))


@pytest.mark.slow
def test_workers_write_the_same(shards: Path, tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--episodes", "5", "--seconds", "3", "--seed", "100", "--shard", "2"]
    command = [sys.executable, "-m", "examples.train_small.data.generate", *words, "--workers", "2"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for path in shards.glob("*.npz"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"episodes": 0}, "can't be recorded"),
        ({"seconds": float("nan")}, "can't be recorded"),
        ({"first_seed": 99_998}, "from one part into another"),
        ({"first_seed": -1}, "from one part into another"),
    ],
)
def test_settings_that_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        replace(SETTINGS, **change)


def spoilt(data: RoadData, name: str, value: float) -> np.ndarray:
    array = getattr(data, name).copy()
    array[40, ...] = value
    return array


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda d: {"plans": spoilt(d, "plans", np.nan)}, r"plans of frame 40, episode 1, [\s\S]*got: +nan"),
        (lambda d: {"plans_all": spoilt(d, "plans_all", 50)}, "no number to train on"),
        (lambda d: {"poses": spoilt(d, "poses", np.inf)}, "poses of frame 40"),
        (lambda d: {"frames": d.frames[:, :80]}, r"frames has the wrong type or shape[\s\S]*80, 96, 3"),
        (lambda d: {"frames": d.frames.astype(np.float32)}, "frames has the wrong type"),
        (lambda d: {"plans": d.plans[:, :8]}, "plans has the wrong type or shape"),
        (lambda d: {"tasks": ("Fly.", *d.tasks[1:])}, "unknown task 'Fly.'"),
        (lambda d: {"task_index": spoilt(d, "task_index", 99)}, "unknown task"),
        (lambda d: {"behaviour": (d.behaviour + 1) % 4}, "driven otherwise than it was told"),
        (lambda d: {"episode": d.episode[::-1].copy()}, "mixed up"),
    ],
)
def test_what_a_training_must_not_see(data: RoadData, make: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        replace(data, **make(data))


def test_files_that_are_not_there_or_damaged(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recordings[\s\S]*generate"):
        read_shards(tmp_path)
    whole = (shards / "road-00000.npz").read_bytes()
    (tmp_path / "road-00000.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="can't be read"):
        read_shards(tmp_path)
    np.savez(tmp_path / "road-00000.npz", frames=np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(DataError, match="there is no episode"):
        read_shards(tmp_path)
