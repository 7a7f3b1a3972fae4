"""Folders of images with states, and recorded requests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.open import open_dataset
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation
from motedge.runtime.policy.request_record import record_request

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


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["0.png,,0;5"], None, "line 2: the state is not made of numbers"),
        ([f"0.png,,{STATE},go,0", f"0.png,,{STATE},go,0,1,2"], None, "line 3 has more cells than the header"),
        ([f",,{STATE},go,0"], None, "line 2 names no image"),
        ([f"0.png,1.png,{STATE},go,0"], f"image,wrist,{JOINTS},gripper,instruction", "an image and cameras|more cells"),
        ([f"0.png,1.png,{STATE},go"], f"image,wrist,{JOINTS},gripper,instruction", "names an image and cameras"),
        ([f"0.png,{STATE},go,-1"], f"wrist,{JOINTS},gripper,instruction,index", "index is not a whole number"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, lines: list[str], header: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(_folder(tmp_path / "set", *lines, **({"header": header} if header else {})))


def test_an_image_that_is_none(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", f"0.png,,{STATE},go,0")
    (root / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"line 2: the policy can't take it") as caught:
        open_dataset(root).observation(Moment("0", 0))
    assert "0.png" in str(caught.value)
    with pytest.raises(DataError, match="no row with episode '' and index 4"):
        open_dataset(root).observation(Moment("", 4))


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", f"0.png,,{STATE},gr\u00fcn,0")
    text = (root / "states.csv").read_text()
    (root / "states.csv").write_text(text, encoding="utf-8-sig")
    assert open_dataset(root).observation(Moment("0", 0)).instruction == "gr\u00fcn"
    (root / "states.csv").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="no table in UTF-8"):
        open_dataset(root)


def test_a_composed_image(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", f"all.png,{STATE}", header=f"image,{JOINTS},gripper")
    Image.fromarray(np.full((540, 640, 3), 7, np.uint8)).save(root / "all.png")
    seen = open_dataset(root, instruction="go").observation(Moment("", 0))
    assert seen.image.shape == (540, 640, 3) and seen.views is None
    first = open_dataset(root, instruction="go").fingerprint()
    Image.fromarray(np.full((540, 640, 3), 8, np.uint8)).save(root / "all.png")
    assert open_dataset(root, instruction="go").fingerprint() != first


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


def _record(root: Path, *greys: int) -> None:
    for number, grey in enumerate(greys):
        seen = Observation([0] * 7, 0.5, "go", views={"wrist": np.full((32, 48, 3), grey, np.uint8)})
        write_observation(root / f"request-{number:06d}", seen)
        (root / f"request-{number:06d}" / "request.json").write_text(f'{{"seed": {number}}}')


def test_repeated_requests_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`--repeat` must not put the same observation on both sides of a split."""
    _record(tmp_path, 1, 1, 2, 1, 3)
    dataset = open_dataset(tmp_path)
    assert dataset.moments() == [Moment("", 0), Moment("", 2), Moment("", 4)]
    assert "2 of 5 requests repeat an observation" in caplog.text
    assert dataset.notes == ("2 of 5 requests repeat an earlier observation and are left out",)
    assert int(dataset.observation(Moment("", 2)).views["wrist"][0, 0, 0]) == 2
    with pytest.raises(DataError, match="no request 9"):
        dataset.observation(Moment("", 9))


def test_sessions_and_single_folders(tmp_path: Path) -> None:
    _record(tmp_path / "all" / "monday", 1, 2)
    _record(tmp_path / "all" / "tuesday", 3)
    dataset = open_dataset(tmp_path / "all")
    assert dataset.moments() == [Moment("monday", 0), Moment("monday", 1), Moment("tuesday", 0)]
    assert int(dataset.observation(Moment("tuesday", 0)).views["wrist"][0, 0, 0]) == 3
    single = open_dataset(tmp_path / "all" / "monday" / "request-000001")
    assert single.moments() == [Moment("", 0)] and len(single.fingerprint()) == 64
    # A request whose writing was cut off
    (tmp_path / "all" / "monday" / "request-000001").rename(tmp_path / "all" / "monday" / ".x.partial")
    assert len(open_dataset(tmp_path / "all" / "monday").moments()) == 1


def test_recorded_requests_keep_the_reasoners_prompt(tmp_path: Path) -> None:
    for number, prompt in enumerate((None, "Lift the cup. Reach for it.")):
        place = record_request(tmp_path, _seen(number), _chunk(prompt))
        assert place.name == f"request-{number:06d}"
    dataset = open_dataset(tmp_path)
    plain, prompted = (dataset.observation(moment) for moment in dataset.moments())
    assert not isinstance(plain, PromptedObservation)
    assert isinstance(prompted, PromptedObservation) and prompted.prompt == "Lift the cup. Reach for it."
    np.testing.assert_array_equal(prompted.image, _seen(1).image)
    assert (prompted.instruction, prompted.gripper_position) == ("go", 0.3)
    # The prompt was made of the recorded instruction
    other = open_dataset(tmp_path, instruction="stop").observation(Moment("", 1))
    assert not isinstance(other, PromptedObservation) and other.instruction == "stop"


def _seen(grey: int) -> Observation:
    return Observation(np.zeros(7), 0.3, "go", image=np.full((540, 640, 3), grey, np.uint8))


def _chunk(prompt: Optional[str]) -> Any:
    details = {"steps": 4, "shift": 5.0, "guidance": 3.0, "guidance_interval": None, "step_cache": None}
    return SimpleNamespace(seed=1, details=details, reasoning=prompt and SimpleNamespace(prompt=prompt))
