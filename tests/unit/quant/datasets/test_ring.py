"""A recorder's ring as a data set: robots' and vehicles' ticks, repeats, damage, prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from quant_scene import observation

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.open import open_dataset
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder import RecorderOptions, TickRecorder
from motedge.runtime.recorder.segment import segments
from motedge.runtime.request import SamplerSettings


def picture(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (96, 96, 3)).astype(np.uint8)


def record(root: Path, seen: list[Observation], **options) -> Path:
    chunk = ActionChunk(
        np.zeros((4, 9), np.float32), 10.0, ("a",) * 9, ("m",) * 9, "av", 1, 4, (), {"total_ms": 1.0}, {}
    )
    recorder = TickRecorder(root, {"bundle": "b"}, RecorderOptions(max_bytes=64 << 20))
    for one in seen:
        recorder.record(one, chunk, SamplerSettings(), **options)
    recorder.close()
    return root


def test_ticks_in_order_repeats_once(tmp_path: Path) -> None:
    told = [Observation.of_camera(picture(n), "Keep left.", source=f"tick {n}") for n in range(4)]
    again, other = told[1], dataclasses.replace(told[1], instruction="Stop.")
    dataset = open_dataset(record(tmp_path / "ring", [*told, again, other]))
    assert dataset.kind == "recording" and dataset.name == "ring"
    assert dataset.notes == ("1 of 6 ticks repeat an earlier observation and are left out",)
    moments = dataset.moments()
    assert len(moments) == 5 and len({moment.group for moment in moments}) == 1
    for number, moment in enumerate(moments[:4]):
        seen = dataset.observation(moment)
        np.testing.assert_array_equal(seen.image, picture(number))
        assert (seen.source, seen.has_state) == (f"tick {number}", False)
    assert dataset.observation(moments[4]).instruction == "Stop."
    with pytest.raises(DataError, match="no tick 9"):
        dataset.observation(Moment(moments[0].group, 9))
    first = dataset.fingerprint()
    assert open_dataset(tmp_path / "ring").fingerprint() == first
    assert open_dataset(tmp_path / "ring", instruction="Halt.").fingerprint() != first
    # With the words replaced, the last two are one
    halted = open_dataset(tmp_path / "ring", instruction="Halt.")
    assert len(halted.moments()) == 4 and halted.observation(moments[0]).instruction == "Halt."


def test_two_runs_are_two_sessions(tmp_path: Path) -> None:
    for number in range(2):
        record(tmp_path, [Observation.of_camera(picture(number), "Stop.")])
    moments = open_dataset(tmp_path).moments()
    assert [moment.index for moment in moments] == [0, 0] and len({moment.group for moment in moments}) == 2


def test_a_robots_ring_and_a_prompt_of_its_own(tmp_path: Path) -> None:
    dataset = open_dataset(record(tmp_path, [observation(3)], prompt="the reasoner's words"))
    seen, expected = dataset.observation(dataset.moments()[0]), observation(3)
    assert isinstance(seen, PromptedObservation) and seen.prompt == "the reasoner's words"
    np.testing.assert_array_equal(seen.joint_position, expected.joint_position)
    np.testing.assert_array_equal(seen.image, expected.image)
    plain = open_dataset(tmp_path, instruction="lift it")
    told = plain.observation(plain.moments()[0])
    assert not isinstance(told, PromptedObservation) and told.instruction == "lift it"


def test_a_torn_end_is_said(tmp_path: Path) -> None:
    record(tmp_path, [Observation.of_camera(picture(n), "Stop.") for n in range(3)])
    (_, path) = segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-100])
    dataset = open_dataset(tmp_path)
    assert len(dataset.moments()) == 2 and "1 places of the ring can't be read" in dataset.notes


def test_nothing_to_see(tmp_path: Path) -> None:
    seen = Observation.of_camera(picture(0), "Stop.")
    (_, path) = segments(record(tmp_path, [seen]))[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="holds no observation"):
        open_dataset(tmp_path)
