"""Folders of images with states, and recorded requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.open import open_dataset
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation

JOINTS = ",".join(f"joint_{number}" for number in range(1, 8))
STATE = "0,-0.5,0,-2,0,2,0.5,0.25"


def _folder(root: Path, *lines: str, header: str = f"wrist,left,{JOINTS},gripper,instruction,episode") -> Path:
    root.mkdir(exist_ok=True)
    for number in range(3):
        Image.fromarray(np.full((32, 48, 3), 10 * number, np.uint8)).save(root / f"{number}.png")
    (root / "states.csv").write_text("\n".join([header, *lines]) + "\n")
    return root


def test_rows_become_observations(tmp_path: Path) -> None:
    lines = [f"{n}.png,{'' if n else '2.png'},{STATE},go {n},{n // 2}" for n in range(3)]
    dataset = open_dataset(_folder(tmp_path / "set", *lines))
    assert dataset.kind == "images"
    assert dataset.moments() == [Moment("0", 0), Moment("0", 1), Moment("1", 2)]
    first, last = dataset.observation(Moment("0", 0)), dataset.observation(Moment("1", 2))
    assert sorted(first.views) == ["left", "wrist"] and sorted(last.views) == ["wrist"]
    assert int(last.views["wrist"][0, 0, 0]) == 20
    assert (last.instruction, last.gripper_position) == ("go 2", 0.25)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"9.png,,{STATE},go,0", "line 2: there is no image 9.png"),
        (f"../x.png,,{STATE},go,0", "line 2: an image lies outside"),
        (f"0.png,,{STATE.replace('-2', 'x')},go,0", "line 2: the state is not made of numbers"),
        (f"0.png,,{STATE.replace('-2', '200')},go,0", "line 2: the policy can't take it"),
        (f"0.png,,{STATE},,0", "line 2 has no instruction"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(_folder(tmp_path / "set", line)).observation(Moment("0", 0))


def test_rows_that_are_one_moment_or_none(tmp_path: Path) -> None:
    row = f"0.png,,{STATE},go,a,7"
    header = f"wrist,left,{JOINTS},gripper,instruction,episode,index"
    with pytest.raises(DataError, match="line 3: episode and index are those of line 2"):
        open_dataset(_folder(tmp_path / "a", row, row, header=header))
    with pytest.raises(DataError, match="is empty"):
        open_dataset(_folder(tmp_path / "b"))


def test_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column joint_7"):
        open_dataset(_folder(tmp_path / "a", header=f"wrist,{JOINTS.replace(',joint_7', '')},gripper"))
    with pytest.raises(DataError, match="no column image"):
        open_dataset(_folder(tmp_path / "b", header=f"{JOINTS},gripper"))


def test_recorded_requests(tmp_path: Path) -> None:
    for number in range(2):
        image = np.full((540, 640, 3), 40 * number, np.uint8)
        seen = Observation([0] * 7, 0.5, f"task {number}", image=image)
        write_observation(tmp_path / f"request-{number:06d}", seen)
    dataset = open_dataset(tmp_path)
    assert (dataset.kind, len(dataset.moments())) == ("requests", 2)
    assert dataset.observation(Moment("", 1)).instruction == "task 1"
    assert open_dataset(tmp_path, instruction="other").observation(Moment("", 1)).instruction == "other"
    first = dataset.fingerprint()
    (tmp_path / "request-000000" / "observation.json").write_text("{}")
    assert open_dataset(tmp_path).fingerprint() != first
