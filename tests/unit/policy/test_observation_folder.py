"""Observation folders: round trip, and folders that are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from droid_vectors import make_image

from motedge.errors import MissingPackageError, ObservationError
from motedge.runtime.policy import observation_folder
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_image, read_observation, write_observation

pytest.importorskip("PIL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    views = {"wrist": make_image("noise", 1, [90, 160]), "right": make_image("noise", 2, [360, 640])}
    seen = Observation(np.linspace(-1, 1, 7), 0.25, "Öffne die Schublade", views=views, source="test")
    write_observation(tmp_path / "seen", seen)
    return tmp_path / "seen"


def change(folder: Path, **changes) -> None:
    path = folder / "observation.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_round_trip(folder: Path) -> None:
    observation = read_observation(folder)
    np.testing.assert_array_equal(observation.views["wrist"], make_image("noise", 1, [90, 160]))
    assert sorted(observation.views) == ["right", "wrist"]
    np.testing.assert_array_equal(observation.joint_position, np.linspace(-1, 1, 7).astype(np.float32))
    assert (observation.gripper_position, observation.instruction) == (0.25, "Öffne die Schublade")
    assert observation.source == "test"
    assert json.loads((folder / "observation.json").read_text(encoding="utf-8"))["views"]["left"] is None
    assert not list(folder.glob("*.partial"))


def test_other_instruction(folder: Path) -> None:
    assert read_observation(folder, instruction="stop").instruction == "stop"


def test_composed_image(folder: Path) -> None:
    from PIL import Image

    Image.fromarray(make_image("noise", 3, [540, 640])).save(folder / "all.png")
    change(folder, image="all.png", views=None)
    np.testing.assert_array_equal(read_observation(folder).image, make_image("noise", 3, [540, 640]))


def test_alpha_and_grey_files_become_rgb(tmp_path: Path) -> None:
    from PIL import Image

    for mode in ("RGBA", "L", "P"):
        Image.fromarray(make_image("noise", 3, [20, 30])).convert(mode).save(tmp_path / "x.png")
        assert read_image(tmp_path / "x.png").shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "motedge.observation/v2"}, "not an observation"),
        ({"joint_positions": []}, "did you mean 'joint_position'"),
        ({"views": {"wirst": "wrist.png"}}, "did you mean 'wrist'"),
        ({"views": {"wrist": "absent.png"}}, "there is no image"),
        ({"views": {"wrist": "observation.json"}}, "not an image that can be read"),
        ({"views": {"wrist": "../../etc/passwd"}}, "outside"),
        ({"views": {"wrist": 3}}, "view wrist is not a file's name"),
        ({"image": {"a": 1}, "views": None}, "image is not a file's name"),
        ({"image": "wrist.png"}, "both image and views"),
        ({"source": ["a"]}, "source is not text"),
        ({"views": "wrist.png"}, "names no images"),
        ({"views": {"wrist": None}}, "no image"),
        ({"joint_position": [0.0] * 6}, "wrong length"),
        ({"gripper_position": None}, "missing"),
        ({"instruction": None}, "observation.json: the instruction is not text"),
        ({"joint_position": None}, "observation.json: joint_position is missing"),
        ({"joint_position": "abc"}, "observation.json: the joint state is not numbers"),
    ],
)
def test_folders_that_are_refused(folder: Path, changes, message: str) -> None:
    change(folder, **changes)
    with pytest.raises(ObservationError, match=message):
        read_observation(folder)


def test_no_folder_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="no observation"):
        read_observation(tmp_path)
    (tmp_path / "observation.json").write_text("{", encoding="utf-8")
    with pytest.raises(ObservationError, match="not JSON"):
        read_observation(tmp_path)
    (tmp_path / "observation.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ObservationError, match="not an observation"):
        read_observation(tmp_path)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ("is not JSON", "one object in UTF-8", "line 1", "--record DIR")),
        ("[]", ("not an observation", '"schema": "motedge.observation/v1"', "a list")),
        ("3", ("got:      the value 3",)),
        ("{}", ("got:      no schema", "--record DIR")),
        ('{"schema": "motedge.observation/v0"}', ("got:      'motedge.observation/v0'",)),
        ('{"schema": "motedge.observation/v1"}', ("names no images", "got:      neither")),
        ('{"schema": "motedge.observation/v1", "views": ["a.png"]}', ("got:      views is a list",)),
    ],
)
def test_a_damaged_file_is_told_with_what_it_should_be(tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "observation.json").write_text(content, encoding="utf-8")
    with pytest.raises(ObservationError) as caught:
        read_observation(tmp_path)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    with pytest.raises(ObservationError, match="is a file, not an observation") as caught:
        read_observation(folder / "observation.json")
    assert f"give its folder: {folder}" in str(caught.value)
    with pytest.raises(ObservationError, match="is a file") as caught:
        read_observation(folder / "wrist.png")
    assert "--record DIR" in str(caught.value)


def test_truncated_image(folder: Path) -> None:
    data = (folder / "wrist.png").read_bytes()
    (folder / "wrist.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ObservationError, match="not an image that can be read"):
        read_observation(folder)


def test_a_composed_image_round_trips(tmp_path: Path) -> None:
    image = make_image("noise", 3, [540, 640])
    write_observation(tmp_path / "seen", Observation([0] * 7, 0, "go", image=image))
    read = read_observation(tmp_path / "seen")
    np.testing.assert_array_equal(read.image, image)
    assert read.views is None


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingPackageError, match=r"motedge\[images\]"):
        observation_folder.read_image(folder / "wrist.png")


def test_an_odd_tag_keeps_no_picture_from_being_read(tmp_path: Path) -> None:
    from PIL import Image

    # As some cameras write them: upright is a quarter turn on, and a number is where a model's name belongs
    entries = ((0x0110, 11, 1, struct.pack("<f", 0.5)), (0x0112, 3, 1, b"\x06\0\0\0"))
    tags = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    exif = b"Exif\0\0II" + struct.pack("<HIH", 42, 8, len(entries)) + tags + bytes(4)
    Image.new("RGB", (30, 20)).save(tmp_path / "odd.jpg", exif=exif)
    assert read_image(tmp_path / "odd.jpg").shape == (30, 20, 3)
    Image.new("RGB", (30, 20)).save(tmp_path / "cut.png", exif=exif[:11])
    with pytest.raises(ObservationError, match="not an image that can be read"):
        read_image(tmp_path / "cut.png")
