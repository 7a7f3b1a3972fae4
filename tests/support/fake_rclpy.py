"""As much of rclpy and its messages as examples/ros2_node uses, recording what is made and sent.

Importing it makes it `rclpy`, and the node's package importable. Names and signatures are those of rclpy's
documentation (Humble to Rolling). Unknown fields and keywords are errors, and so are numbers of the wrong type, as in
rosidl's messages.
"""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


class TransitionCallbackReturn(enum.Enum):
    SUCCESS, FAILURE, ERROR = range(3)


class _Message:
    """Fields by name -> what makes their first value; a float field takes floats alone."""

    _fields: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        for name, kind in self._fields.items():
            object.__setattr__(self, name, kind())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise AttributeError(f"{type(self).__name__} has no field {name}")
        kind = self._fields[name]
        if kind in (float, str, bytes, int) and type(value) is not kind:
            raise AssertionError(f"{name} must be a {kind.__name__}")
        if name in ("positions", "position") and not all(type(number) is float for number in value):
            raise AssertionError(f"{name} must be a sequence of floats")
        object.__setattr__(self, name, value)


def message(title: str, /, **fields: Any) -> type[_Message]:
    return type(title, (_Message,), {"_fields": fields})


Time = message("Time", sec=int, nanosec=int)
Header = message("Header", stamp=Time, frame_id=str)
Image = message("Image", header=Header, height=int, width=int, encoding=str, is_bigendian=int, step=int, data=bytes)
JointState = message("JointState", header=Header, name=list, position=list, velocity=list, effort=list)
Float64 = message("Float64", data=float)
JointTrajectoryPoint = message(
    "JointTrajectoryPoint", positions=list, velocities=list, accelerations=list, effort=list, time_from_start=Time
)
JointTrajectory = message("JointTrajectory", header=Header, joint_names=list, points=list)
KeyValue = message("KeyValue", key=str, value=str)
DiagnosticStatus = message("DiagnosticStatus", level=bytes, name=str, message=str, hardware_id=str, values=list)
DiagnosticStatus.OK, DiagnosticStatus.WARN = b"\x00", b"\x01"  # type: ignore[attr-defined]
DiagnosticArray = message("DiagnosticArray", header=Header, status=list)


class Duration:
    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0) -> None:
        self.nanoseconds = round(seconds * 1e9) + nanoseconds

    def to_msg(self) -> Any:
        made = Time()
        made.sec, made.nanosec = divmod(self.nanoseconds, 10**9)
        return made


@dataclass
class QoSProfile:
    history: Any = None
    depth: Any = None
    reliability: Any = None
    durability: Any = None
    lifespan: Any = None
    deadline: Any = None


@dataclass
class Callbacks:
    deadline: Any = None


@dataclass
class Clock:
    clock_type: Any = "ros"

    def now(self) -> Any:
        return Duration(seconds=1.5)


@dataclass
class Timer:
    timer_period_sec: float
    callback: Any
    clock: Any


@dataclass
class Subscription:
    msg_type: Any
    topic: str
    callback: Any
    qos: Any
    event_callbacks: Any


@dataclass
class Publisher:
    msg_type: Any
    topic: str
    qos: Any
    event_callbacks: Any
    sent: list[Any] = field(default_factory=list)
    # Published while not active, which rclpy drops
    dropped: int = 0
    active: bool = False
    # ns, for its subscribers to confirm
    waited: int = 0

    def publish(self, sent: Any) -> None:
        assert isinstance(sent, self.msg_type)
        if self.active:
            self.sent.append(sent)
        else:
            self.dropped += 1

    def wait_for_all_acked(self, timeout: Any) -> bool:
        self.waited = timeout.nanoseconds
        return True


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *, throttle_duration_sec: float = 0.0) -> None:
        self.lines.append(f"info {text}")

    def warning(self, text: str, *, throttle_duration_sec: float = 0.0) -> None:
        self.lines.append(f"warning {text}")

    def error(self, text: str, *, throttle_duration_sec: float = 0.0) -> None:
        self.lines.append(f"error {text}")


class LifecycleNode:
    def __init__(self, node_name: str) -> None:
        self.name, self.state = node_name, "unconfigured"
        self.parameters: dict[str, Any] = {}
        self.logger = Logger()
        self.timers: list[Timer] = []
        self.listening: list[Subscription] = []
        self.talking: list[Publisher] = []

    def declare_parameter(self, name: str, value: Any = None) -> None:
        assert name not in self.parameters and value is not None and not isinstance(value, tuple)
        self.parameters[name] = value

    def get_parameter(self, name: str) -> Any:
        return types.SimpleNamespace(value=self.parameters[name])

    def get_logger(self) -> Logger:
        return self.logger

    def get_clock(self) -> Clock:
        return Clock()

    def create_timer(
        self, timer_period_sec: float, callback: Any, callback_group: Any = None, clock: Any = None
    ) -> Any:
        self.timers.append(Timer(timer_period_sec, callback, clock))
        return self.timers[-1]

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Any, qos_profile: Any, *, event_callbacks: Any = None
    ) -> Any:
        self.listening.append(Subscription(msg_type, topic, callback, qos_profile, event_callbacks))
        return self.listening[-1]

    def create_lifecycle_publisher(
        self, msg_type: Any, topic: str, qos_profile: Any, *, event_callbacks: Any = None
    ) -> Any:
        self.talking.append(Publisher(msg_type, topic, qos_profile, event_callbacks))
        return self.talking[-1]

    def destroy_timer(self, timer: Any) -> bool:
        self.timers.remove(timer)
        return True

    def destroy_subscription(self, subscription: Any) -> bool:
        self.listening.remove(subscription)
        return True

    def destroy_lifecycle_publisher(self, publisher: Any) -> bool:
        self.talking.remove(publisher)
        return True

    def destroy_node(self) -> None:
        self.state = "destroyed"

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    on_cleanup = on_shutdown = on_error = on_configure

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        for publisher in self.talking:
            publisher.active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        for publisher in self.talking:
            publisher.active = False
        return TransitionCallbackReturn.SUCCESS

    def trigger(self, transition: str, reached: str) -> TransitionCallbackReturn:
        """A transition as rclpy makes it: what a callback raises is an error."""
        try:
            answer = getattr(self, f"on_{transition}")(self.state)
        except Exception as error:  # noqa: BLE001 -- as rclpy
            self.logger.error(repr(error))
            self.on_error(self.state)
            self.state = "unconfigured"
            return TransitionCallbackReturn.ERROR
        if answer is TransitionCallbackReturn.SUCCESS:
            self.state = reached
        return answer

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self.trigger("configure", "inactive")

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self.trigger("activate", "active")

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self.trigger("deactivate", "inactive")

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self.trigger("cleanup", "unconfigured")

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        return self.trigger("shutdown", "finalized")


class SingleThreadedExecutor:
    """Hands each turn to `turn`, which a test sets."""

    turn: Any = None

    def add_node(self, node: Any) -> bool:
        self.node = node
        return True

    def spin_once(self, timeout_sec: float) -> None:
        type(self).turn(self.node)


def _module(name: str, **content: Any) -> None:
    made = types.ModuleType(name)
    vars(made).update(content)
    sys.modules[name] = made


def _install() -> None:
    """Puts the fakes and the node's package where imports look."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "ros2_node"))
    choice = types.SimpleNamespace
    _module("rclpy", init=lambda **options: None, shutdown=lambda: None)
    _module("rclpy.executors", SingleThreadedExecutor=SingleThreadedExecutor)
    _module("rclpy.clock", Clock=Clock, ClockType=choice(STEADY_TIME="steady"))
    _module("rclpy.duration", Duration=Duration)
    _module("rclpy.event_handler", PublisherEventCallbacks=Callbacks, SubscriptionEventCallbacks=Callbacks)
    _module(
        "rclpy.lifecycle",
        LifecycleNode=LifecycleNode,
        LifecycleState=str,
        TransitionCallbackReturn=TransitionCallbackReturn,
    )
    _module(
        "rclpy.qos",
        QoSProfile=QoSProfile,
        HistoryPolicy=choice(KEEP_LAST="keep last"),
        ReliabilityPolicy=choice(BEST_EFFORT="best effort", RELIABLE="reliable"),
    )
    _module("rclpy.signals", SignalHandlerOptions=choice(NO="no"))
    for package, content in {
        "sensor_msgs": {"Image": Image, "JointState": JointState},
        "std_msgs": {"Float64": Float64},
        "trajectory_msgs": {"JointTrajectory": JointTrajectory, "JointTrajectoryPoint": JointTrajectoryPoint},
        "diagnostic_msgs": {
            "DiagnosticArray": DiagnosticArray,
            "DiagnosticStatus": DiagnosticStatus,
            "KeyValue": KeyValue,
        },
    }.items():
        _module(package)
        _module(f"{package}.msg", **content)


_install()
