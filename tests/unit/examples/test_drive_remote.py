"""Driving over the real socket, on a simulated clock: good and bad policies, late chunks, a server that goes away."""

from __future__ import annotations

import json
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
from serve_scene import MadeResident, served

from examples.drive_remote import __main__ as program
from examples.drive_remote.loop import DrivingLoop, Leg
from examples.drive_remote.vehicle import Vehicle
from examples.train_small.road.expert import Expert, behaviour_index
from examples.train_small.road.instructions import behaviour_of
from motedge.client import RemoteOptions, RemotePolicy, SimulatedClock, SimulatedWorker
from motedge.errors import UsageError
from motedge.runtime.policy.chunk import ActionChunk

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FIELDS = ("x", "y", "z", *(f"rot6d_{index}" for index in range(6)))
AHEAD = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
ROAD = 200_100


class Driver(MadeResident):
    """A resident that drives: the expert looks at the car itself, the others straight ahead."""

    def __init__(self, expert: bool = True, fails_after: int = 10**9) -> None:
        super().__init__(work=self.plan)
        self._expert, self._fails_after = expert, fails_after
        self.vehicle: Any = None
        units = ["m"] * 3 + ["1"] * 6
        keys = ["observation/image", "prompt"]
        self.metadata.update(embodiment="av", rate_hz=10.0, action_rows=16, action_fields=list(FIELDS))
        self.metadata.update(action_units=units, observation_keys=keys, image_size=[96, 96])

    def plan(self, request: Any) -> ActionChunk:
        if len(self.requests) > self._fails_after:
            raise RuntimeError("boom")
        assert request.observation.image.shape == (96, 96, 3)
        rows = np.tile(np.array(AHEAD, np.float32), (16, 1))
        if self._expert:
            simulator = self.vehicle.simulator
            what = behaviour_index(behaviour_of(request.observation.instruction))
            rows = Expert(simulator.track).plan(simulator.pose()[None], [what])[0]
        return ActionChunk(rows, 10.0, FIELDS, ("m",) * 3 + ("1",) * 6, "av", 0, 1, (), {"total_ms": 1.0}, {})


def drive(
    monkeypatch: pytest.MonkeyPatch, out: Path, driver: Driver, *options: str, latency_s: float = 0.05
) -> tuple[int, Any]:
    """The program, in this process; the worker asks while the simulator stands, so that the expert may look at it."""

    def made(seed: int) -> Vehicle:
        driver.vehicle = Vehicle(seed)
        return driver.vehicle

    monkeypatch.setattr(program, "Vehicle", made)
    with served(driver) as running:
        common = ["--server", running.url, "--road", str(ROAD), "--simulated-latency-s", str(latency_s)]
        monkeypatch.setattr(sys, "argv", ["drive_remote", *common, "--out", str(out), *options])
        code = program.main()
    return code, json.loads(out.read_text()) if out.exists() else None


def test_two_instructions_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--instruction", "left", "--instruction", "Stop the car.", "--seconds", "5")
    code, report = drive(monkeypatch, tmp_path / "r.json", Driver(), *options)
    assert code == 0 and report["success"] and report["ended"] == "at the end"
    assert [leg["done"] for leg in report["legs"]] == ["left", "stop"]
    assert all(leg["plan_error_m"] < 0.05 for leg in report["legs"])
    assert report["periods"] == {"of_s": 0.1, "fresh": 100, "past_takeover": 0, "held": 0, "missed": 0}
    assert report["chunks"]["late"] == report["chunks"]["failed"] == 0
    # Every four periods one, and one that is on its way
    assert 25 <= report["chunks"]["asked"] <= 26 and report["chunks"]["round_trip_ms"]["count"] >= 25


def test_who_does_not_look_leaves_the_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = drive(monkeypatch, tmp_path / "r.json", Driver(expert=False), "--seconds", "15")
    assert code == 1 and not report["success"] and report["legs"][0]["done"] == "off the road"
    assert report["ended"] == "off the road for good" and report["legs"][0]["seconds"] < 15


def test_late_chunks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = drive(monkeypatch, tmp_path / "r.json", Driver(), "--seconds", "5", latency_s=0.25)
    assert code == 0, "a quarter of a second is not too late to drive"
    assert report["periods"]["past_takeover"] > 10 and report["periods"]["held"] == 0
    assert report["chunks"]["late"] >= report["chunks"]["used"] - 2


def test_a_server_that_fails_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk that is there is driven to its end, then the car brakes and stands."""
    code, report = drive(monkeypatch, tmp_path / "r.json", Driver(fails_after=6), "--seconds", "8")
    assert code == 1 and report["chunks"]["failed"] > 10 and "RemoteError" in report["errors"][0]["text"]
    assert report["periods"]["held"] > 10 and report["legs"][0]["off_road_s"] == 0


def test_what_is_left_of_an_earlier_chunk_is_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a deadline that was not met: fewer rows, and they count from an earlier picture."""

    class Deadline(Driver):
        def plan(self, request: Any) -> ActionChunk:
            made = super().plan(request)
            if len(self.requests) != 6:
                return made
            return replace(made, actions=made.actions[5:], kind="held", first_row=5)

    code, report = drive(monkeypatch, tmp_path / "r.json", Deadline(), "--seconds", "5")
    assert code == 0 and report["chunks"]["failed"] == 1 and report["chunks"]["late"] == 0
    assert "a held chunk" in report["errors"][0]["text"] and report["legs"][0]["plan_error_m"] < 0.05
    # One that was asked for drives nothing: neither its time nor its error is a plan's
    assert report["chunks"]["round_trip_ms"]["count"] == report["chunks"]["asked"] - 1


def test_a_car_without_chunks_stands() -> None:
    driver = Driver()
    driver.vehicle = vehicle = Vehicle(ROAD)
    clock = SimulatedClock()
    with served(driver) as running, RemotePolicy(running.url, options=RemoteOptions(timeout_s=2.0)) as policy:
        latency_s = [0.05] * 5 + [float("inf")]
        loop = DrivingLoop(policy, vehicle, [Leg("Keep left.", 6.0)], every=4, seed=1)
        log = loop.run(clock, SimulatedWorker(clock, lambda number: latency_s[min(number, 5)]))
    assert log.moments[20].speed_m_s > 5 and abs(log.moments[-1].speed_m_s) < 0.1
    assert log.moments[-1].kind == "held" and log.stream["waiting_s"] > 3
    vehicle.close()


def test_film_picture_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    chunk = pytest.importorskip("rerun.chunk", reason="logging needs motedge[rerun]")
    film, picture, log = tmp_path / "f.webp", tmp_path / "p.png", tmp_path / "l.rrd"
    options = ["--seconds", "2", "--film", str(film), "--film-every", "5", "--picture", str(picture)]
    drive(monkeypatch, tmp_path / "r.json", Driver(), *options, "--rerun", str(log))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["f.webp", "l.rrd", "p.png", "r.json"]
    with image.open(film) as opened:
        assert opened.size == (480, 556) and opened.n_frames == 4
    seen = np.asarray(image.open(picture).convert("RGB")).astype(int)
    # The plan's strip ahead of the car is neither road nor grass: grey is as red as green and as blue
    ahead = seen[200:340, 200:280]
    assert (np.ptp(ahead, axis=-1) > 25).any() and (ahead.min(-1) > 225).any()
    rows: dict[str, int] = {}
    for part in chunk.RrdReader(str(log)).stream():
        rows[part.entity_path] = rows.get(part.entity_path, 0) + part.num_rows
    assert rows["/car/speed_m_s"] == 20 and rows["/model/sees"] == rows["/model/sees/plan"] == 5


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = Driver()
    other.metadata["embodiment"] = "droid_lerobot"
    for driver, options, message in (
        (other, (), "embodiment 'droid_lerobot', not 'av'"),
        (Driver(), ("--instruction", "Fly."), "unknown task 'Fly.'"),
        (Driver(), ("--every", "17"), "--every"),
        (Driver(), ("--film", str(tmp_path / "f.avi")), "no films of the format '.avi'"),
        (Driver(), ("--film-every", "0"), "--film-every"),
        (Driver(fails_after=0), (), "the source of chunks failed"),
    ):
        code, report = drive(monkeypatch, tmp_path / "r.json", driver, *options)
        assert code != 0 and report is None and message in capsys.readouterr().err
    with pytest.raises(UsageError, match="can't go so"):
        DrivingLoop(None, None, [Leg("left", 0.5)], every=4, seed=0)


@pytest.mark.slow
def test_the_committed_checkpoint_drives_in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="exporting needs motedge[export]")
    from examples.train_small.closed_loop.bundles import export_small
    from motedge.serve.bundle_choice import BundleChoice
    from motedge.serve.bundle_resident import load_resident

    sampler = {"steps": 4, "shift": 5.0, "guidance": 1.0}
    engines = {"check": "size", "threads": 1}
    choice = BundleChoice(export_small(tmp_path / "bundle"), engines=engines, policy=sampler)
    out = tmp_path / "r.json"
    with served(lambda generation: load_resident(choice, generation)) as running:
        options = ["--seconds", "5", "--instruction", "left", "--instruction", "right", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["drive_remote", "--server", running.url, *options])
        assert program.main() == 0
    report = json.loads(out.read_text())
    assert [leg["done"] for leg in report["legs"]] == ["left", "right"]
    # Real time: a busy machine may miss a period, and a car of which nothing is known stands
    assert report["periods"]["held"] == 0 and report["chunks"]["failed"] == 0
