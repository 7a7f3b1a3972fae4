"""The node's parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from motedge.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """One field a parameter; the defaults are what the node declares.

    Raises:
        UsageError: on creation, values that can't be driven with.
    """

    url: str = "ws://127.0.0.1:8000"
    # File with the secret that the server asks for; "" for none
    token_file: str = ""
    # PEM of the authority of the server's certificate (wss://); "" for the system's
    tls_ca: str = ""
    # What to do, in words
    prompt: str = ""
    # Topics of sensor_msgs/Image; "" for a camera that is not there, which the policy sees as black
    wrist_topic: str = ""
    left_topic: str = ""
    right_topic: str = ""
    joint_states_topic: str = "/joint_states"
    # Base to wrist, as in the joint states and for the controller
    joint_names: tuple[str, ...] = tuple(f"fr3_joint{number}" for number in range(1, 8))
    # In the joint states; "" where the gripper is not among them: then the last command is taken for its state
    gripper_joint: str = ""
    # Its positions, in the unit of the joint states
    gripper_open: float = 0.04
    gripper_closed: float = 0.0
    trajectory_topic: str = "/joint_trajectory_controller/joint_trajectory"
    # std_msgs/Float64, fraction closed
    gripper_topic: str = "~/gripper_closed"
    rate_hz: float = 15.0
    # Rows of a chunk that are executed, and how long before their end the next is asked for
    horizon: int = 24
    lead_s: float = 0.8
    # Of a request, and of the connection when the node is configured
    timeout_s: float = 5.0
    connect_timeout_s: float = 10.0
    # Older pictures and joint states are none
    stale_s: float = 0.5
    # Asked of the sensors' publishers by QoS; 0: none, and only `stale_s` counts
    sensor_deadline_s: float = 0.0
    # TOML file of the arm's limits; "" for those of DROID's Panda
    envelope_file: str = ""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UsageError("the parameter prompt is empty", expected="what to do, in words")
        if not any(self.cameras().values()):
            raise UsageError("no camera", expected="one of wrist_topic, left_topic, right_topic")
        if len(self.joint_names) != 7 or len(set(self.joint_names)) != 7:
            raise UsageError("joint_names", expected="seven different names", got=list(self.joint_names))
        for name in ("rate_hz", "timeout_s", "connect_timeout_s", "stale_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"the parameter {name}", expected="over 0", got=value)
        if not (math.isfinite(self.sensor_deadline_s) and self.sensor_deadline_s >= 0):
            raise UsageError("the parameter sensor_deadline_s", expected="0 or more", got=self.sensor_deadline_s)
        if not math.isfinite(self.gripper_open - self.gripper_closed) or self.gripper_open == self.gripper_closed:
            raise UsageError("gripper_open and gripper_closed are no range", got=f"{self.gripper_open:g} twice")

    def cameras(self) -> dict[str, str]:
        """View of the policy -> topic."""
        return {"wrist": self.wrist_topic, "left": self.left_topic, "right": self.right_topic}

    @classmethod
    def declare(cls, node: Any) -> None:
        """Declares every parameter on a node."""
        for field in fields(cls):
            default = field.default
            node.declare_parameter(field.name, list(default) if isinstance(default, tuple) else default)

    @classmethod
    def read(cls, node: Any) -> Settings:
        """The node's values.

        Raises:
            UsageError: see the class.
        """
        values = {field.name: node.get_parameter(field.name).value for field in fields(cls)}
        return cls(**{**values, "joint_names": tuple(values["joint_names"])})
