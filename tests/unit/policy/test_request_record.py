"""Requests on disk: complete, or not there at all."""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("PIL")

from motedge.cli.main import main
from motedge.errors import ObservationError, UsageError
from motedge.runtime.policy import request_record
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_observation
from motedge.runtime.policy.request_record import check_record_folder, record_request, recorded_prompt

SETTINGS = {"steps": 4, "shift": 5.0, "guidance": 3.0, "guidance_interval": None}
CHUNK = SimpleNamespace(seed=7, details={**SETTINGS, "und_len": 90}, reasoning=None)
REASONED = SimpleNamespace(
    seed=7, details={**SETTINGS, "step_cache": "every:2"}, reasoning=SimpleNamespace(prompt='{"go": "on"}')
)


def _seen(grey: int = 9) -> Observation:
    return Observation(np.linspace(-1, 1, 7), 0.3, "go", image=np.full((540, 640, 3), grey, np.uint8))


def test_a_request_comes_back_exactly(tmp_path: Path) -> None:
    place = record_request(tmp_path / "new" / "record", _seen(), CHUNK)
    assert place.name == "request-000000"
    again = read_observation(place)
    np.testing.assert_array_equal(again.image, _seen().image)
    np.testing.assert_array_equal(again.joint_position, _seen().joint_position)
    said = json.loads((place / "request.json").read_text())
    assert (said["schema"], said["seed"], said["settings"]) == ("motedge.request/v1", 7, SETTINGS)
    assert datetime.datetime.fromisoformat(said["time"]).tzinfo is not None


def test_what_the_reasoner_wrote_and_what_was_left_out(tmp_path: Path) -> None:
    place = record_request(tmp_path, _seen(), REASONED)
    said = json.loads((place / "request.json").read_text())
    assert said["settings"]["step_cache"] == "every:2"
    assert recorded_prompt(place) == said["prompt"] == '{"go": "on"}'
    # Without a reasoner, as before there was one, and an observation alone
    assert recorded_prompt(record_request(tmp_path, _seen(), CHUNK)) is None
    assert recorded_prompt(tmp_path) is None
    for damaged, words in (("{", "is not JSON"), ('{"prompt": 3}', "not a recorded request")):
        (place / "request.json").write_text(damaged)
        with pytest.raises(ObservationError, match=words):
            recorded_prompt(place)


def test_numbers_go_on_behind_the_last(tmp_path: Path) -> None:
    (tmp_path / "request-000041").mkdir()
    (tmp_path / "request-notes").mkdir()
    assert record_request(tmp_path, _seen(), CHUNK).name == "request-000042"


def test_several_at_once_take_different_names(tmp_path: Path) -> None:
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda grey=grey: places.append(record_request(tmp_path, _seen(grey), CHUNK)))
        for grey in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"request-{number:06d}" for number in range(8)]
    assert sorted(int(read_observation(place).image[0, 0, 0]) for place in places) == list(range(8))


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(request_record, "write_observation", fail)
    with pytest.raises(KeyboardInterrupt):
        record_request(tmp_path, _seen(), CHUNK)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="can't be recorded"):
            check_record_folder(target)
    check_record_folder(tmp_path / "absent" / "deeper")
    assert not (tmp_path / "absent").exists()
    # Said before anything is loaded: there is no bundle here
    assert main(["run", "b", "--observation", "absent", "--record", str(tmp_path / "file")]) == 2
    assert "can't be recorded" in capsys.readouterr().err
