"""The newest pictures and joint states, and the observation that they make."""

from __future__ import annotations

import threading
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.client import Clock, droid_observation
from motedge.errors import ObservationError
from motedge_policy.settings import Settings


class Sensors:
    """Messages come in the executor's thread, observations are made in the stream's.

    Ages are by this machine's clock from a message's arrival: stamps are of other machines' clocks, which jump.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Nothing has come yet."""
        self._settings, self._clock, self._lock = settings, clock, threading.Lock()
        self._pictures: dict[str, tuple[Any, float]] = {}
        self._state: Optional[tuple[NDArray[np.float64], float]] = None
        # The gripper as last commanded, fraction closed
        self.commanded_gripper = 0.0
        # Messages that could not be taken
        self.bad = 0

    def take_picture(self, view: str, message: Any) -> None:
        """A sensor_msgs/Image."""
        with self._lock:
            self._pictures[view] = message, self._clock.now_s()

    def take_joints(self, message: Any) -> None:
        """A sensor_msgs/JointState; one of other joints is left alone, as topics may carry several robots'."""
        names = self._settings.joint_names
        places = {name: at for at, name in enumerate(message.name)}
        wanted = [*names, self._settings.gripper_joint] if self._settings.gripper_joint else list(names)
        if any(name not in places for name in wanted):
            return
        # Positions may be left out: a message of speeds or efforts alone
        if len(message.position) != len(message.name):
            with self._lock:
                self.bad += 1
            return
        values = np.array([message.position[places[name]] for name in wanted], np.float64)
        with self._lock:
            if not np.isfinite(values).all():
                self.bad += 1
                return
            gripper = self.commanded_gripper if len(values) == 7 else self._closed(values[7])
            self._state = np.append(values[:7], gripper), self._clock.now_s()

    def state(self) -> NDArray[np.float64]:
        """Seven angles in rad and the gripper's fraction closed, [8].

        Raises:
            ObservationError: none has come, or not for a while.
        """
        with self._lock:
            found = self._state
        if found is None:
            raise ObservationError(
                f"no joint states on {self._settings.joint_states_topic}",
                expected=", ".join(self._settings.joint_names),
            )
        self._fresh(f"the joint states on {self._settings.joint_states_topic}", found[1])
        return found[0].copy()

    def observe(self) -> dict[str, Any]:
        """What the policy is asked with.

        Raises:
            ObservationError: something is missing, old, or no picture.
        """
        state = self.state()
        with self._lock:
            seen = dict(self._pictures)
        pictures: dict[str, Any] = {}
        for view, topic in self._settings.cameras().items():
            if not topic:
                continue
            if view not in seen:
                raise ObservationError(f"no picture on {topic}")
            message, came_s = seen[view]
            self._fresh(f"the picture on {topic}", came_s)
            pictures[view] = rgb_of(message, topic)
        return droid_observation(state[:7], float(state[7]), self._settings.prompt, **pictures)

    def _closed(self, position: float) -> float:
        far = self._settings.gripper_closed - self._settings.gripper_open
        return float(np.clip((position - self._settings.gripper_open) / far, 0.0, 1.0))

    def _fresh(self, what: str, came_s: float) -> None:
        age_s = self._clock.now_s() - came_s
        if age_s > self._settings.stale_s:
            raise ObservationError(
                f"{what} is old", expected=f"at most {self._settings.stale_s:g} s", got=f"{age_s:.2f} s"
            )


def rgb_of(message: Any, topic: str) -> NDArray[np.uint8]:
    """A sensor_msgs/Image as uint8 RGB [rows, columns, 3].

    Raises:
        ObservationError: another encoding than rgb8 and bgr8, or fewer bytes than it says.
    """
    if message.encoding not in ("rgb8", "bgr8"):
        raise ObservationError(f"the picture on {topic}", expected="rgb8 or bgr8", got=message.encoding)
    rows, columns, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if step < 3 * columns or data.size < rows * step or not rows * columns:
        raise ObservationError(
            f"the picture on {topic} is cut off",
            expected=f"{rows} rows of {columns} pixels, {step} bytes each",
            got=f"{data.size} bytes",
        )
    pixels = data[: rows * step].reshape(rows, step)[:, : 3 * columns].reshape(rows, columns, 3)
    return np.ascontiguousarray(pixels if message.encoding == "rgb8" else pixels[..., ::-1])
