"""What the policy is told at one moment: camera images, joint and gripper state if there is one, the instruction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from motedge.errors import ObservationError, closest
from motedge.runtime.cuda.frames import DeviceFrame
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.droid import JOINTS
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.views import COMPOSED_SIZE, VIEW_NAMES

CHANNEL_ORDERS = ("rgb", "bgr")
# Pixels; below, the picture can't show a scene, and above it is not a camera's
_SMALLEST_SIDE, _LARGEST_SIDE = 16, 8192
# A sensor may read a little beyond its ends
_GRIPPER_RANGE = (-0.1, 1.1)


@dataclass(frozen=True, eq=False)
class Observation:
    """One moment of a DROID robot, or of a vehicle. Everything is checked on creation.

    A robot has joints, a gripper, and `views` or `image`. A vehicle has one camera and no state: `of_camera` makes one.

    Raises:
        ObservationError: something that the policy can't take; the message says what and why.
    """

    # 7 angles in rad, base to wrist; kept as fp32 [7], or fp32 [0] without a state
    joint_position: Any
    # Fraction closed: 0 open, 1 closed; None without a state
    gripper_position: Any
    # What to do, in words
    instruction: str
    # Camera name (wrist, left, right) -> uint8 [rows, columns, 3] of any size; missing ones are seen as black. A frame
    # that is on the GPU is given as a DeviceFrame, whose own format counts instead of channel_order
    views: Optional[Mapping[str, Union[Image, DeviceFrame]]] = None
    # The composed image instead: uint8 [540, 640, 3], wrist on top, left and right below; a vehicle's is of any size
    image: Optional[Image] = None
    # "rgb" or "bgr" (OpenCV's); kept as rgb. A wrong one can't be detected
    channel_order: str = "rgb"
    # Where it comes from, in words
    source: Optional[str] = None

    def __post_init__(self) -> None:
        if self.channel_order not in CHANNEL_ORDERS:
            raise ObservationError(
                f"unknown channel order {self.channel_order!r}", fix=closest(str(self.channel_order), CHANNEL_ORDERS)
            )
        if (self.views is None) == (self.image is None):
            raise ObservationError("an observation needs either views or image", got="both" if self.views else "none")
        stateless = self.image is not None and self.gripper_position is None and _no_joints(self.joint_position)
        if self.image is not None:
            shown = _rgb("the image", self.image, self.channel_order) if stateless else self._composed(self.image)
            object.__setattr__(self, "image", shown)
        if self.views is not None:
            object.__setattr__(self, "views", self._cameras(self.views))
        object.__setattr__(self, "channel_order", "rgb")
        if stateless:
            object.__setattr__(self, "joint_position", np.zeros(0, np.float32))
        else:
            object.__setattr__(self, "joint_position", _joints(self.joint_position))
            object.__setattr__(self, "gripper_position", _gripper(self.gripper_position))
        _require_instruction(self.instruction)

    @classmethod
    def of_camera(
        cls, image: Image, instruction: str, *, channel_order: str = "rgb", source: Optional[str] = None
    ) -> Observation:
        """What a vehicle sees, uint8 [rows, columns, 3], and is told.

        Raises:
            ObservationError: something that the policy can't take.
        """
        return cls(None, None, instruction, image=image, channel_order=channel_order, source=source)

    @property
    def has_state(self) -> bool:
        """Whether joints and gripper are known: a robot's observation."""
        return len(self.joint_position) > 0

    @property
    def on_gpu(self) -> bool:
        """Whether any frame is on the GPU."""
        return any(isinstance(view, DeviceFrame) for view in (self.views or {}).values())

    def host_views(self) -> Mapping[str, Image]:
        """The views, all of them host arrays.

        Raises:
            ObservationError: one is on the GPU, where numpy does not reach.
        """
        found: dict[str, Image] = {}
        for name, view in (self.views or {}).items():
            if isinstance(view, DeviceFrame):
                raise ObservationError(
                    f"the {name} frame is on the GPU",
                    expected="frames in host memory, or a policy that runs on the GPU with the compiled kernels",
                    fix='load the policy with engine="tensorrt" and build the kernels, or copy the frame to the host',
                )
            found[name] = view
        return found

    def _composed(self, image: Any) -> Image:
        checked = _rgb("the composed image", image, self.channel_order)
        if checked.shape[:2] != COMPOSED_SIZE:
            raise ObservationError(
                "the composed image has the wrong size",
                expected=f"{COMPOSED_SIZE[0]} rows x {COMPOSED_SIZE[1]} columns: wrist on top, left and right below",
                got=f"{checked.shape[0]} x {checked.shape[1]}",
                why="the policy was trained on that layout; stretching another image into it would mislead it",
                fix="give each camera by name in views; they may have any size",
            )
        return checked

    def _cameras(self, views: Any) -> Mapping[str, Union[Image, DeviceFrame]]:
        if not isinstance(views, Mapping):
            raise ObservationError("views is not a mapping", expected="camera name -> image", got=type(views).__name__)
        for name in views:
            if name not in VIEW_NAMES:
                raise ObservationError(f"unknown camera view {name!r}", fix=closest(str(name), VIEW_NAMES))
        present = {name: image for name, image in views.items() if image is not None}
        if not present:
            raise ObservationError(
                "the observation has no image", expected=f"at least one of {', '.join(VIEW_NAMES)}", got="none"
            )
        return {name: self._camera(name, image) for name, image in present.items()}

    def _camera(self, name: str, image: Any) -> Union[Image, DeviceFrame]:
        if isinstance(image, DeviceFrame):
            _check_sides(f"the {name} frame", image.rows, image.columns)
            return image
        return _rgb(f"the {name} image", image, self.channel_order)


def _no_joints(value: Any) -> bool:
    return value is None or (isinstance(value, np.ndarray) and not value.size)


def _rgb(what: str, image: Any, channel_order: str) -> Image:
    expected = "a numpy array, uint8 [rows, columns, 3]"
    if not isinstance(image, np.ndarray):
        raise ObservationError(f"{what} is not an image", expected=expected, got=type(image).__name__)
    got = f"{image.dtype.name} {list(image.shape)}"
    if image.dtype != np.uint8:
        raise ObservationError(
            f"{what} has the wrong type", expected=expected, got=got, fix="scale it to 0..255 and convert to uint8"
        )
    if image.ndim != 3:
        raise ObservationError(f"{what} is not one colour image", expected=expected, got=got)
    rows, columns, channels = image.shape
    if channels != 3:
        raise ObservationError(f"{what} has the wrong layout", expected=expected, got=got, fix=_layout_fix(image.shape))
    _check_sides(what, rows, columns)
    return np.ascontiguousarray(image[..., ::-1] if channel_order == "bgr" else image)


def _check_sides(what: str, rows: int, columns: int) -> None:
    if min(rows, columns) < _SMALLEST_SIDE or max(rows, columns) > _LARGEST_SIDE:
        raise ObservationError(
            f"{what} has the wrong size",
            expected=f"sides of {_SMALLEST_SIDE} to {_LARGEST_SIDE} pixels",
            got=f"{rows} rows x {columns} columns",
        )


def _layout_fix(shape: tuple[int, ...]) -> str:
    if shape[0] == 3:
        return "channels come last: image.transpose(1, 2, 0)"
    if shape[2] == 4:
        return "drop the alpha channel: image[..., :3]"
    return "give three channels, red, green, blue"


def _joints(value: Any) -> FloatArray:
    expected = f"{JOINTS} finite joint angles in rad"
    try:
        # What float32 can't hold becomes infinite, which is refused below
        with np.errstate(over="ignore"):
            joints = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ObservationError("the joint state is not numbers", expected=expected, got=repr(value)) from error
    if joints.shape != (JOINTS,):
        why = "the gripper is given apart, as gripper_position" if joints.shape == (JOINTS + 1,) else None
        raise ObservationError(
            "the joint state has the wrong length", expected=expected, got=f"shape {list(joints.shape)}", why=why
        )
    if not np.isfinite(joints).all():
        raise ObservationError("the joint state holds NaN or infinity", expected=expected, got=joints.tolist())
    if np.abs(joints).max() > 2 * math.pi:
        raise ObservationError(
            "a joint angle is more than a full turn",
            expected=expected,
            got=joints.tolist(),
            why="no joint of this arm can reach it; the angles are probably in degrees",
            fix="convert them to radians",
        )
    # A copy: the caller may reuse its buffer for the next tick
    return joints.copy()


def _gripper(value: Any) -> float:
    expected = "one number, the fraction closed: 0 open, 1 closed"
    if value is None:
        raise ObservationError("the gripper state is missing", expected=expected)
    try:
        # [x] and array([x]) too: robots report the gripper as a vector of one
        number = float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise ObservationError("the gripper state is not a number", expected=expected, got=repr(value)) from error
    if not math.isfinite(number):
        raise ObservationError("the gripper state is NaN or infinite", expected=expected, got=number)
    if not _GRIPPER_RANGE[0] <= number <= _GRIPPER_RANGE[1]:
        raise ObservationError(
            "the gripper state is out of range", expected=expected, got=number, fix="divide the width by its full range"
        )
    return number


def _require_instruction(value: Any) -> None:
    if not isinstance(value, str):
        raise ObservationError("the instruction is not text", expected="a sentence", got=type(value).__name__)
    if not value.strip():
        raise ObservationError(
            "the instruction is empty",
            expected="what the robot should do, in words",
            why="an empty prompt is the unconditional branch: the policy would follow no task",
        )
