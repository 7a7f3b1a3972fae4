"""Where a bench's observations come from, and which are taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motedge.bench.observations import read_scenes
from motedge.errors import ObservationError, UsageError
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation
from motedge.runtime.recorder.ring_writer import RingWriter
from motedge.runtime.recorder.tick_record import TICK, encode

pytest.importorskip("PIL")
ROBOT = "droid_lerobot"


def observed(number: int) -> Observation:
    picture = np.full((48, 64, 3), number, np.uint8)
    return Observation(np.full(7, 0.1 * number), 0.5, f"task {number}", views={"wrist": picture})


def folders(root: Path, count: int) -> Path:
    for number in range(count):
        write_observation(root / f"request-{number:06d}", observed(number))
    return root


def ring(root: Path, embodiment: str, count: int) -> Path:
    writer = RingWriter(root, 1 << 20)
    for number in range(count):
        seen = {"gripper_position": 0.5, "instruction": f"task {number}", "source": None}
        document = {"number": number, "observation": seen, "reply": {"embodiment": embodiment}, "prompt": None}
        arrays = {"joint_position": np.zeros(7, np.float32), "view.wrist": np.zeros((48, 64, 3), np.uint8)}
        writer.append(encode(TICK, document, arrays))
    writer.close()
    return root


def test_one_and_many(tmp_path: Path) -> None:
    many = folders(tmp_path / "many", 3)
    assert [scene.name for scene in read_scenes([many / "request-000001"], ROBOT, 8)] == ["request-000001"]
    scenes = read_scenes([many], ROBOT, 8)
    assert [scene.name for scene in scenes] == [f"many/request-00000{number}" for number in range(3)]
    assert [scene.observation.instruction for scene in scenes] == ["task 0", "task 1", "task 2"]
    assert len({scene.sha256 for scene in scenes}) == 3 and all(scene.prompt is None for scene in scenes)


def test_folders_of_several_runs(tmp_path: Path) -> None:
    for run in ("monday", "tuesday"):
        folders(tmp_path / "runs" / run, 2)
    names = [scene.name for scene in read_scenes([tmp_path / "runs"], ROBOT, 8)]
    assert names == [f"runs/{run}/request-00000{number}" for run in ("monday", "tuesday") for number in range(2)]


def test_they_are_thinned_evenly(tmp_path: Path) -> None:
    many = folders(tmp_path / "many", 9)
    names = [scene.name[-1] for scene in read_scenes([many], ROBOT, 3)]
    assert names == ["0", "3", "6"]
    assert len(read_scenes([many, many], ROBOT, 100)) == 18


def test_a_change_in_a_file_is_a_change_of_the_observation(tmp_path: Path) -> None:
    many = folders(tmp_path / "many", 2)
    before = [scene.sha256 for scene in read_scenes([many], ROBOT, 8)]
    write_observation(many / "request-000001", observed(7))
    after = [scene.sha256 for scene in read_scenes([many], ROBOT, 8)]
    assert after[0] == before[0] and after[1] != before[1]


def test_a_prompt_that_the_reasoner_wrote_is_kept(tmp_path: Path) -> None:
    many = folders(tmp_path / "many", 1)
    (many / "request-000000/request.json").write_text(json.dumps({"schema": "motedge.request/v1", "prompt": "a plan"}))
    assert read_scenes([many], ROBOT, 8)[0].prompt == "a plan"


def test_a_ring(tmp_path: Path) -> None:
    scenes = read_scenes([ring(tmp_path / "ring", ROBOT, 3)], ROBOT, 8)
    assert [scene.name for scene in scenes] == ["ring/tick 0", "ring/tick 1", "ring/tick 2"]
    assert [scene.observation.instruction for scene in scenes] == ["task 0", "task 1", "task 2"]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="recorded of another robot"):
        read_scenes([ring(tmp_path / "ring", "av", 1)], ROBOT, 8)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(ObservationError, match="there is no observation"):
            read_scenes([path], ROBOT, 8)
    many = folders(tmp_path / "many", 2)
    (many / "request-000001/observation.json").write_text("{")
    with pytest.raises(ObservationError, match="is not JSON"):
        read_scenes([many], ROBOT, 8)
    with pytest.raises(UsageError, match="needs an observation"):
        read_scenes([many], ROBOT, 0)
