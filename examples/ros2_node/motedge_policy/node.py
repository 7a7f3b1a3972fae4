"""A managed ROS 2 node: cameras and joint states to a motedge policy server, its actions to a trajectory controller.

    unconfigured --configure--> inactive: connected, listening --activate--> active: the arm moves

Every command passes the envelope. What brings the arm to rest: no chunk (the last action is held), old joint states,
deactivation, an error. Timed by the machine's steady clock: neither simulated time nor a clock that is set moves it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from motedge.client import (
    ActionEnvelope,
    ChunkStream,
    MonotonicClock,
    RemoteOptions,
    RemotePolicy,
    StreamOptions,
    read_token,
)
from motedge.client.stream_errors import ChunkGapError, ChunkSourceError
from motedge.errors import MotedgeError, ObservationError
from motedge_policy.braking import way_to_rest
from motedge_policy.sensors import Sensors
from motedge_policy.settings import Settings

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_LOG_S, _LOOK_S, _ACKED_S = 1.0, 0.2, 0.5
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self, *, clock: Optional[Any] = None, worker: Optional[Any] = None) -> None:
        """Declares the parameters; `clock` and `worker` are for tests."""
        super().__init__("motedge_policy")
        Settings.declare(self)
        self._time, self._worker = clock or MonotonicClock(), worker
        # Topic -> messages that came later than the QoS deadline
        self.deadline_misses: dict[str, int] = {}
        self._policy: Any = None
        self._stream: Optional[ChunkStream] = None
        self._subscriptions_made: list[Any] = []
        self._publishers_made: list[Any] = []
        self._timers_made: list[Any] = []

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Connects to the server, which must serve what this arm is driven by, and listens."""
        try:
            self._settings = settings = Settings.read(self)
            file = settings.envelope_file
            self._envelope = ActionEnvelope.from_file(file) if file else ActionEnvelope.for_embodiment("droid_lerobot")
            token = read_token(settings.token_file) if settings.token_file else None
            self._policy = RemotePolicy(
                settings.url,
                token=token,
                expect={"embodiment": "droid_lerobot", "rate_hz": settings.rate_hz},
                options=RemoteOptions(timeout_s=settings.timeout_s, connect_timeout_s=settings.connect_timeout_s),
                tls_ca=settings.tls_ca or None,
            )
        except (MotedgeError, OSError) as error:
            self.get_logger().error(f"not configured: {error}")
            return _FAILURE
        self._sensors = Sensors(settings, self._time)
        self._listen(settings)
        self._talk(settings)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begins where the arm stands."""
        settings = self._settings
        try:
            self._envelope.reset(self._sensors.state())
            options = StreamOptions(
                rate_hz=settings.rate_hz,
                horizon=settings.horizon,
                prefetch_lead_s=settings.lead_s,
                on_empty="hold",
                on_error="report",
            )
        except MotedgeError as error:
            self.get_logger().error(f"not activated: {error}")
            return _FAILURE
        act = self._policy.act
        self._stream = ChunkStream(act, self._sensors.observe, options, clock=self._time, worker=self._worker)
        self._moving, self._last_s = False, self._time.now_s() - options.period_s
        done = super().on_activate(state)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_made = [
            self.create_timer(options.period_s, self._tick, clock=steady),
            self.create_timer(1.0, self._diagnose, clock=steady),
        ]
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brings the arm to rest."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves the server and the topics."""
        self._leave()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state."""
        self._stop()
        self._leave()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Something was raised in a transition: at rest, and unconfigured."""
        self._stop()
        self._leave()
        return super().on_error(state)

    def _tick(self) -> None:
        """One command; never waits."""
        stream = self._stream
        if stream is None:
            return
        row = self._wanted(stream)
        now_s = self._time.now_s()
        if row is None:
            # Nothing was commanded yet, and the controller holds the arm
            self._last_s = now_s
            return
        verdict = self._envelope.apply(row, now_s - self._last_s)
        self._last_s = now_s
        if not verdict.passed and verdict.causes:
            causes = ", ".join(f"{name}: {cause}" for name, cause in verdict.causes.items())
            self.get_logger().info(f"{verdict.kind} by the envelope: {causes}", throttle_duration_sec=_LOG_S)
        self._command(verdict.action[None])

    def _wanted(self, stream: ChunkStream) -> Optional[NDArray[np.float64]]:
        """What the policy wants now; NaN, by which the envelope brakes, where the arm's state is not known."""
        log = self.get_logger()
        try:
            if not self._moving:
                stream.wait_first(0.0)
                self._moving = True
            action = stream.next_action()
            self._sensors.state()
        except ChunkGapError:
            return None
        except ChunkSourceError as error:
            log.warning(f"no first chunk: {error}", throttle_duration_sec=_LOG_S)
            return None
        except ObservationError as error:
            log.error(f"braking: {error}", throttle_duration_sec=_LOG_S)
            return np.full(8, np.nan)
        if action.error is not None:
            log.warning(f"no new chunk: {action.error}", throttle_duration_sec=_LOG_S)
        if action.kind == "held":
            log.warning("no chunk is left: the last action is held", throttle_duration_sec=_LOG_S)
        return action.row

    def _command(self, rows: NDArray[np.float64]) -> None:
        """Publishes rows [n, 8], one a period from now on."""
        message = JointTrajectory()
        # A stamp of zero begins at once, whatever clock the controller has
        message.joint_names = list(self._settings.joint_names)
        for number, row in enumerate(rows, 1):
            point = JointTrajectoryPoint()
            point.positions = [float(value) for value in row[:7]]
            point.time_from_start = Duration(seconds=number / self._settings.rate_hz).to_msg()
            message.points.append(point)
        self._trajectories.publish(message)
        # DROID closes the gripper above one half
        closed = float(rows[-1][7] > 0.5)
        if closed != self._sensors.commanded_gripper:
            self._sensors.commanded_gripper = closed
            grip = Float64()
            grip.data = closed
            self._grips.publish(grip)

    def _listen(self, settings: Settings) -> None:
        """Sensor data: the newest alone."""
        topics: list[tuple[Any, str, Callable[[Any], None]]] = [
            (Image, topic, lambda message, view=view: self._sensors.take_picture(view, message))
            for view, topic in settings.cameras().items()
            if topic
        ]
        topics.append((JointState, settings.joint_states_topic, self._sensors.take_joints))
        quality = {
            "history": HistoryPolicy.KEEP_LAST,
            "depth": 1,
            "reliability": ReliabilityPolicy.BEST_EFFORT,
        }
        if settings.sensor_deadline_s:
            # Only then: a subscription that asks for a deadline does not match a publisher that offers none
            quality["deadline"] = Duration(seconds=settings.sensor_deadline_s)
        for kind, topic, take in topics:
            events = SubscriptionEventCallbacks(deadline=self._late(topic))
            made = self.create_subscription(kind, topic, take, QoSProfile(**quality), event_callbacks=events)
            self._subscriptions_made.append(made)

    def _talk(self, settings: Settings) -> None:
        """Commands are offered with a deadline of two periods: the controller's side may ask to be told."""
        quality = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            deadline=Duration(seconds=2 / settings.rate_hz),
        )
        events = PublisherEventCallbacks(deadline=self._late(settings.trajectory_topic))
        self._trajectories = self.create_lifecycle_publisher(
            JointTrajectory, settings.trajectory_topic, quality, event_callbacks=events
        )
        self._grips = self.create_lifecycle_publisher(Float64, settings.gripper_topic, 1)
        self._diagnostics = self.create_lifecycle_publisher(DiagnosticArray, "/diagnostics", 1)
        self._publishers_made = [self._trajectories, self._grips, self._diagnostics]

    def _late(self, topic: str) -> Callable[[Any], None]:
        self.deadline_misses[topic] = 0

        def count(event: Any) -> None:
            # Before the arm moves nobody waits
            if self._stream is not None and self._moving:
                self.deadline_misses[topic] += int(event.total_count_change)

        return count

    def _diagnose(self) -> None:
        """What was counted, once a second."""
        if self._stream is None or self._policy is None:
            return
        report, envelope = self._stream.report(), self._envelope.counters.to_dict()
        misses = {f"late on {topic}": count for topic, count in self.deadline_misses.items()}
        values = {**vars(report.counters), **envelope, **misses, "reconnects": self._policy.reconnects}
        status = DiagnosticStatus()
        status.name, status.hardware_id = "motedge_policy", self._settings.url
        held = report.counters.gap_ticks + report.counters.missed_ticks
        status.level = DiagnosticStatus.WARN if held else DiagnosticStatus.OK
        status.message = f"{held} periods without a new action" if held else "every period had its action"
        for key, value in values.items():
            pair = KeyValue()
            pair.key, pair.value = str(key), str(value)
            status.values.append(pair)
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status.append(status)
        self._diagnostics.publish(message)

    def _stop(self) -> None:
        """No further commands but those that brake. Harmless when repeated."""
        stream, self._stream = self._stream, None
        for timer in self._timers_made:
            self.destroy_timer(timer)
        self._timers_made = []
        if stream is None:
            return
        if self._moving:
            period_s = 1 / self._settings.rate_hz
            self._command(way_to_rest(self._envelope, max(self._time.now_s() - self._last_s, 1e-3), period_s))
            # The publisher may be destroyed next
            if not self._trajectories.wait_for_all_acked(Duration(seconds=_ACKED_S)):
                self.get_logger().warning("nobody confirmed the way to rest")
        stream.close()
        self.get_logger().info(f"stopped: {stream.report().counters}, {self._envelope.counters.to_dict()}")

    def _leave(self) -> None:
        policy, self._policy = self._policy, None
        if policy is not None:
            policy.close()
        for made in self._subscriptions_made:
            self.destroy_subscription(made)
        for made in self._publishers_made:
            self.destroy_lifecycle_publisher(made)
        self._subscriptions_made, self._publishers_made = [], []


def main() -> None:
    """Runs until told to end; whatever ends it, the arm is brought to rest first.

    Signals are not left to rclpy, which would end the context before the last command is sent. The executor looks up
    now and then, since nothing else wakes it for a signal.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node, executor = PolicyNode(), SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while True:
            executor.spin_once(timeout_sec=_LOOK_S)
    except KeyboardInterrupt:
        pass
    finally:
        node.trigger_shutdown()
        node.destroy_node()
        rclpy.shutdown()
