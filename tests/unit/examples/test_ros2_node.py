"""The ROS 2 node on a fake rclpy, over the real socket: life cycle, commands inside the limits, what makes it brake.

It was not run on ROS 2: there is none here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fake_rclpy
import numpy as np
import pytest
from fake_rclpy import TransitionCallbackReturn
from motedge_policy.node import PolicyNode, main
from motedge_policy.sensors import rgb_of
from motedge_policy.settings import Settings
from serve_scene import MadeResident, chunk_of, served

from motedge.client import SimulatedClock, SimulatedWorker
from motedge.errors import ObservationError, UsageError

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
START = [0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0]
NAMES = [f"fr3_joint{number}" for number in range(1, 8)]
PERIOD_S = 1 / 15
# Franka's data sheet for the Panda, rad/s: the least of the joints'
SPEED = 2.175


def moves(request: Any) -> Any:
    """Turns the first joint on, by 0.02 rad a row, and closes the gripper."""
    made = chunk_of(request)
    actions = np.tile(np.append(START, 1.0), (32, 1)).astype(np.float32)
    actions[:, 0] = request.observation.joint_position[0] + 0.02 * (np.arange(32) + 1)
    return replace(made, actions=actions)


class Arm:
    """Plays the part of cameras, joints and controller around a node, on a clock that is moved by hand."""

    def __init__(self, url: str, latency_s: float = 0.2, **parameters: Any) -> None:
        self.clock = SimulatedClock(100.0)
        self.node = PolicyNode(clock=self.clock, worker=SimulatedWorker(self.clock, lambda number: latency_s))
        wanted = {"url": url, "prompt": "pick it up", "wrist_topic": "/wrist", "connect_timeout_s": 3.0, **parameters}
        self.node.parameters.update(wanted)
        self.joints = list(START)

    def sense(self, joints: bool = True, picture: bool = True) -> None:
        state, image = fake_rclpy.JointState(), fake_rclpy.Image()
        # In another order, with another arm's joints between
        state.name = ["other", *reversed(NAMES)]
        state.position = [9.0, *reversed(self.joints)]
        image.height, image.width, image.step, image.encoding = 36, 64, 200, "bgr8"
        image.data = bytes(36 * 200)
        for subscription in self.node.listening:
            if subscription.msg_type is (fake_rclpy.JointState if joints else None):
                subscription.callback(state)
            if subscription.msg_type is (fake_rclpy.Image if picture else None):
                subscription.callback(image)

    def run(self, ticks: int, **senses: bool) -> None:
        for _ in range(ticks):
            self.sense(**senses)
            self.node.timers[0].callback()
            self.clock.sleep(PERIOD_S)
            if self.commands():
                self.joints = self.commands()[-1].points[0].positions

    def publisher(self, topic: str) -> Any:
        return next(made for made in self.node.talking if made.topic == topic)

    def commands(self) -> list[Any]:
        return self.publisher("/joint_trajectory_controller/joint_trajectory").sent

    def path(self) -> np.ndarray:
        return np.array([point.positions for sent in self.commands() for point in sent.points])


@pytest.fixture
def url() -> Iterator[str]:
    with served(MadeResident(work=moves)) as running:
        yield running.url


def active(arm: Arm) -> Arm:
    assert arm.node.trigger_configure() is SUCCESS
    arm.sense()
    assert arm.node.trigger_activate() is SUCCESS
    return arm


def test_from_configured_to_finalized(url: str) -> None:
    arm = Arm(url)
    active(arm).run(40)
    node, sent = arm.node, arm.commands()
    # Nothing before the first chunk, then a command every period
    assert 35 <= len(sent) <= 38
    assert all(message.joint_names == NAMES and len(message.points) == 1 for message in sent)
    assert sent[0].points[0].time_from_start.nanosec == pytest.approx(1e9 * PERIOD_S, abs=1)
    steps = np.abs(np.diff(arm.path(), axis=0)) / PERIOD_S
    assert steps.max() < SPEED and arm.path()[-1, 0] > 0.3
    grips = arm.publisher("~/gripper_closed")
    assert [message.data for message in grips.sent] == [1.0]
    node.timers[1].callback()
    status = arm.publisher("/diagnostics").sent[0].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert status.level == b"\x00" and int(values["fresh"]) == len(sent) and values["reconnects"] == "0"
    assert all(timer.clock.clock_type == "steady" for timer in node.timers)
    assert node.trigger_deactivate() is SUCCESS and not node.timers
    # The last message is the way to rest
    rest = np.array([point.positions for point in arm.commands()[-1].points])
    assert len(rest) >= 2 and np.abs(rest[-1] - rest[-2]).max() < 1e-5
    assert arm.publisher("/joint_trajectory_controller/joint_trajectory").waited == 500_000_000
    dropped = [made.dropped for made in node.talking]
    assert dropped == [0, 0, 0]
    assert node.trigger_activate() is SUCCESS
    arm.run(5)
    assert node.trigger_shutdown() is SUCCESS
    assert not node.listening and not node.talking and not node.timers and node.state == "finalized"


def test_quality_of_service(url: str) -> None:
    arm = active(Arm(url, sensor_deadline_s=0.2))
    image, joints = arm.node.listening
    assert image.qos.reliability == "best effort" and image.qos.depth == 1
    assert joints.qos.deadline.nanoseconds == 200_000_000
    commands = arm.publisher("/joint_trajectory_controller/joint_trajectory")
    assert commands.qos.reliability == "reliable" and commands.qos.deadline.nanoseconds == round(2e9 * PERIOD_S)
    late = image.event_callbacks.deadline
    late(type("Event", (), {"total_count_change": 3}))
    assert arm.node.deadline_misses["/wrist"] == 0, "nothing moves yet"
    arm.run(8)
    late(type("Event", (), {"total_count_change": 2}))
    arm.node.timers[1].callback()
    values = {pair.key: pair.value for pair in arm.publisher("/diagnostics").sent[0].status[0].values}
    assert values["late on /wrist"] == "2"
    # Without the parameter a camera that offers no deadline must match
    other = active(Arm(url))
    assert other.node.listening[0].qos.deadline is None


def test_old_joint_states_brake(url: str) -> None:
    arm = active(Arm(url))
    arm.run(20)
    before = len(arm.commands())
    arm.run(60, joints=False)
    path = arm.path()
    assert len(arm.commands()) == before + 60
    assert np.abs(path[-1] - path[-2]).max() < 1e-9 and any("braking" in line for line in arm.node.logger.lines)
    assert (np.abs(np.diff(path, axis=0)) / PERIOD_S).max() < SPEED
    # They come back, and it goes on
    arm.run(30)
    assert arm.path()[-1, 0] > path[-1, 0] + 0.05


def test_old_pictures_are_not_asked_with(url: str) -> None:
    arm = active(Arm(url))
    arm.run(20)
    arm.run(90, picture=False)
    path = arm.path()
    assert np.abs(path[-1] - path[-2]).max() < 1e-6, "the last action is held"
    assert any("the picture on /wrist is old" in line for line in arm.node.logger.lines)
    assert any("the last action is held" in line for line in arm.node.logger.lines)


def test_a_server_that_goes_away() -> None:
    with served(MadeResident(work=moves)) as running:
        arm = active(Arm(running.url, timeout_s=0.3))
        arm.run(20)
    arm.run(40)
    path = arm.path()
    assert np.abs(path[-1] - path[-2]).max() < 1e-6
    assert any("no new chunk: " in line and "ConnectionFailedError" in line for line in arm.node.logger.lines)
    arm.node.timers[1].callback()
    assert arm.publisher("/diagnostics").sent[0].status[0].level == b"\x01"


def test_a_clock_that_jumps(url: str) -> None:
    """Nobody sets the steady clock; if it stands, goes back or leaps all the same, the limits hold."""
    arm = active(Arm(url))
    arm.run(20)
    for jump_s in (-30.0, 0.0, 600.0):
        arm.clock.advance_to(arm.clock.now_s() + jump_s)
        arm.run(10)
    assert np.abs(np.diff(arm.path(), axis=0)[:, 0]).max() < SPEED * 1.0


def test_not_configured(url: str) -> None:
    other = MadeResident()
    other.metadata["embodiment"] = "av"
    with served(other) as running:
        for arm, message in (
            (Arm(running.url), "embodiment 'av', not 'droid_lerobot'"),
            (Arm("ws://127.0.0.1:9", connect_timeout_s=0.2), "127.0.0.1:9"),
            (Arm(url, prompt=" "), "prompt"),
            (Arm(url, wrist_topic=""), "no camera"),
            (Arm(url, envelope_file="/nowhere.toml"), "nowhere.toml"),
        ):
            assert arm.node.trigger_configure() is FAILURE and arm.node.state == "unconfigured"
            assert message in arm.node.logger.lines[-1] and not arm.node.listening


def test_not_activated(url: str) -> None:
    arm = Arm(url)
    assert arm.node.trigger_configure() is SUCCESS
    assert arm.node.trigger_activate() is FAILURE and "no joint states" in arm.node.logger.lines[-1]
    arm.joints = [0.0] * 7
    arm.sense()
    # The elbow of a Franka can't be straight
    assert arm.node.trigger_activate() is FAILURE and "joint_position_3" in arm.node.logger.lines[-1]
    assert not arm.node.timers and arm.node.trigger_cleanup() is SUCCESS and not arm.node.talking


def test_a_gripper_among_the_joints(url: str) -> None:
    arm = Arm(url, gripper_joint="finger", gripper_open=0.04, gripper_closed=0.0)
    assert arm.node.trigger_configure() is SUCCESS
    state = fake_rclpy.JointState()
    state.name, state.position = ["finger", *NAMES], [0.01, *START]
    arm.node.listening[-1].callback(state)
    assert arm.node._sensors.state()[7] == pytest.approx(0.75)
    state.position = [0.01, *START[:6], float("nan")]
    arm.node.listening[-1].callback(state)
    assert arm.node._sensors.bad == 1 and np.isfinite(arm.node._sensors.state()).all()
    arm.node.trigger_cleanup()


@pytest.mark.parametrize("positions", [[], START[:6], [*START, 0.0]])
def test_joint_states_without_a_position_for_each_name(url: str, positions: list[float]) -> None:
    """The message may leave its positions out; the state from before stays."""
    arm = active(Arm(url))
    before = arm.node._sensors.state()
    state = fake_rclpy.JointState()
    state.name, state.position = list(NAMES), positions
    arm.node.listening[-1].callback(state)
    assert arm.node._sensors.bad == 1 and np.array_equal(arm.node._sensors.state(), before)
    # Those of another robot are not the arm's, bad or not
    state.name = ["wheel"]
    arm.node.listening[-1].callback(state)
    assert arm.node._sensors.bad == 1
    arm.node.trigger_shutdown()


def test_pictures() -> None:
    image = fake_rclpy.Image()
    image.height, image.width, image.step, image.encoding = 1, 2, 8, "bgr8"
    image.data = bytes([1, 2, 3, 4, 5, 6, 0, 0])
    assert rgb_of(image, "/a").tolist() == [[[3, 2, 1], [6, 5, 4]]]
    for change, message in (
        ({"data": b"123"}, "cut off"),
        ({"encoding": "mono8"}, "rgb8 or bgr8"),
        ({"step": 3}, "cut off"),
    ):
        bad = fake_rclpy.Image()
        for name in ("height", "width", "step", "encoding", "data"):
            setattr(bad, name, change.get(name, getattr(image, name)))
        with pytest.raises(ObservationError, match=message):
            rgb_of(bad, "/a")


@pytest.mark.parametrize(
    "change",
    [{"rate_hz": 0.0}, {"stale_s": float("nan")}, {"joint_names": ("a",) * 7}, {"gripper_open": 0.0}, {"prompt": ""}],
)
def test_settings_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(Settings(prompt="go", wrist_topic="/w"), **change)


@pytest.mark.parametrize("ends", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_it_the_arm_comes_to_rest_first(
    monkeypatch: pytest.MonkeyPatch, url: str, ends: type[BaseException]
) -> None:
    made: list[Arm] = []

    def node() -> Any:
        made.append(Arm(url))
        return made[0].node

    def turn(node: Any) -> None:
        arm = made[0]
        if node.state == "unconfigured":
            active(arm)
        arm.run(1)
        if len(arm.commands()) > 10:
            made.append(arm.publisher("/joint_trajectory_controller/joint_trajectory"))
            raise ends("on the way")

    monkeypatch.setattr("motedge_policy.node.PolicyNode", node)
    monkeypatch.setattr(fake_rclpy.SingleThreadedExecutor, "turn", turn)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    with contextlib.suppress(RuntimeError) if ends is RuntimeError else contextlib.nullcontext():
        main()
    arm, publisher = made
    assert arm.node.state == "destroyed" and len(publisher.sent[-1].points) >= 2 and not arm.node.talking
