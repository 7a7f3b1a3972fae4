"""An arm in MuJoCo over the real socket, on a simulated clock: it follows, keeps its limits, stands without chunks."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import examples_package  # noqa: F401
import numpy as np
import pytest
from serve_scene import MadeResident, chunk_of, served

from examples.mujoco_arm.arm import CAMERAS, RENDERERS, START, Cameras, SimulatedArm
from motedge.client import RemoteOptions, RemotePolicy, SimulatedClock, SimulatedWorker, StreamOptions
from motedge.client.envelope_limits import load_envelope
from motedge.errors import HostError

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("an arm needs motedge[sim]", allow_module_level=True)


@pytest.fixture(scope="module")
def opengl() -> str:
    cameras = Cameras(SimulatedArm())
    try:
        cameras.pictures()
    except HostError as error:
        pytest.skip(f"MuJoCo can't draw here: {error.got}")
    finally:
        cameras.close()
    return "opengl"


def turns(request: Any, step_rad: float = 0.02) -> Any:
    """The first joint on by so much a row, the gripper closed."""
    seen = request.observation
    actions = np.tile(np.append(START[:7], 1.0), (32, 1)).astype(np.float32)
    actions[:, 0] = seen.joint_position[0] + step_rad * (np.arange(32) + 1)
    return replace(chunk_of(request), actions=actions)


def drive(monkeypatch: pytest.MonkeyPatch, resident: Any, out: Path, *options: str) -> tuple[int, Any]:
    from examples.mujoco_arm import __main__ as program

    with served(resident) as running:
        words = ["mujoco_arm", "--server", running.url, "--simulated-latency-s", "0.2", "--cameras", "drawn"]
        monkeypatch.setattr(sys, "argv", [*words, "--out", str(out), *options])
        code = program.main()
    return code, json.loads(out.read_text()) if out.exists() else None


def test_joints_are_those_of_the_envelope() -> None:
    model = SimulatedArm().model
    for number, limits in enumerate(load_envelope("droid_lerobot").fields[:7], 1):
        assert model.joint(f"joint{number}").range == pytest.approx([limits.low, limits.high], abs=1e-3)


def test_a_commanded_arm_gets_there() -> None:
    arm = SimulatedArm()
    assert arm.state() == pytest.approx(START, abs=1e-6)
    target = START + np.array([0.3, 0.2, -0.2, 0.2, 0.1, -0.2, 0.3, 1.0])
    arm.command(target)
    arm.advance_to(2.0)
    assert arm.state() == pytest.approx(target, abs=0.01) and arm.data.time == pytest.approx(2.0, abs=0.003)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_cameras_see_the_arm_move(renderer: str, request: pytest.FixtureRequest) -> None:
    if renderer == "opengl":
        request.getfixturevalue("opengl")
    arm = SimulatedArm()
    cameras = Cameras(arm, renderer=renderer)
    before, positions, time_s = cameras.pictures()
    assert sorted(before) == ["left", "right", "wrist"] and time_s == 0.0
    assert all(picture.shape == (180, 320, 3) and picture.std() > 15 for picture in before.values())
    arm.command(START + np.array([0.5, 0, 0, 0, 0, 0, 0, 0]))
    arm.advance_to(1.0)
    after, _, _ = cameras.pictures()
    for name in before:
        assert np.abs(after[name].astype(int) - before[name]).mean() > 1, name
    np.testing.assert_array_equal(cameras.picture_of(positions, "left"), before["left"])
    cameras.close()


def test_both_renderers_see_things_in_the_same_places(opengl: str) -> None:
    arm = SimulatedArm()
    pictures = []
    for renderer in RENDERERS:
        cameras = Cameras(arm, renderer=renderer)
        pictures.append(cameras.pictures()[0])
        cameras.close()
    for name in CAMERAS:
        cube, wood = ([middle(picture[name]) for picture in pictures] for middle in (middle_of_red, middle_of_wood))
        assert cube[0] == pytest.approx(cube[1], abs=2), name
        assert wood[0] == pytest.approx(wood[1], abs=8), name


def middle_of_red(picture: np.ndarray) -> np.ndarray:
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return np.argwhere((red > 2.2 * green) & (red > 2.2 * blue)).mean(0)


def middle_of_wood(picture: np.ndarray) -> np.ndarray:
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return np.argwhere((red > 1.1 * green) & (green > 1.1 * blue)).mean(0)


def test_the_loop_with_film_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    film = tmp_path / "f.gif"
    options = ["--seconds", "3.97", "--film", str(film), "--film-every", "15"]
    resident = MadeResident(work=turns)
    code, report = drive(monkeypatch, resident, tmp_path / "r.json", *options)
    assert code == 0 and report["seconds"] == pytest.approx(4.0, abs=0.1)
    counters = report["stream"]["counters"]
    assert counters["fresh"] == 60 and counters["gap_ticks"] == counters["missed_ticks"] == 0
    assert report["largest_lag_rad"] < 0.1 and report["envelope"]["rejected"] == 0
    # The server was sent what the arm then was
    states = [request.observation.joint_position[0] for request in resident.requests]
    assert states == sorted(states) and states[-1] > 0.5 and resident.requests[-1].observation.gripper_position > 0.9
    with image.open(film) as opened:
        assert opened.n_frames == 4 and opened.size == (640, 416)


def test_a_log_for_rerun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = pytest.importorskip("rerun.chunk", reason="logging needs motedge[rerun]")
    log = tmp_path / "l.rrd"
    drive(monkeypatch, MadeResident(work=turns), tmp_path / "r.json", "--seconds", "1", "--rerun", str(log))
    rows: dict[str, int] = {}
    for part in chunk.RrdReader(str(log)).stream():
        rows[part.entity_path] = rows.get(part.entity_path, 0) + part.num_rows
    assert rows["/commanded/joint_0"] == rows["/measured/gripper"] == 15
    assert rows["/cameras/wrist"] == rows["/chunk/infer_ms"] >= 1


def test_jumps_are_kept_in_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = drive(
        monkeypatch, MadeResident(work=lambda request: turns(request, 0.5)), tmp_path / "r.json", "--seconds", "2"
    )
    assert code == 0 and report["envelope"]["clamped"] > 20
    assert "speed" in report["envelope"]["by_field"]["joint_position_0"]


def test_without_chunks_the_arm_stands() -> None:
    from examples.mujoco_arm.loop import ArmLoop

    clock, arm = SimulatedClock(), SimulatedArm()
    latency_s = [0.2, 0.2, float("inf")]
    options = StreamOptions(rate_hz=15, horizon=24, prefetch_lead_s=0.8, on_empty="hold", on_error="report")
    with (
        served(MadeResident(work=turns)) as running,
        RemotePolicy(running.url, options=RemoteOptions(timeout_s=2.0)) as policy,
    ):
        loop = ArmLoop(policy, arm, "go", options, clock, "drawn")
        loop.run(6.0, SimulatedWorker(clock, lambda number: latency_s[min(number, 2)]))
    last = loop.moments[-15:]
    assert {moment.action for moment in last} == {"held"} and loop.moments[40].state[0] > 0.5
    assert np.ptp([moment.state[:7] for moment in last], axis=0).max() < 1e-3


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = MadeResident()
    other.metadata["embodiment"] = "av"
    for resident, options, message in (
        (other, (), "embodiment 'av', not 'droid_lerobot'"),
        (MadeResident(), ("--seconds", "nan"), "--seconds"),
        (MadeResident(), ("--film", "f.avi"), "no films of the format"),
        (MadeResident(), ("--film-every", "0"), "--film-every"),
    ):
        code, report = drive(monkeypatch, resident, tmp_path / "r.json", *options)
        assert code != 0 and report is None and message in capsys.readouterr().err
