"""A seven-joint arm in MuJoCo: commanded by position, on its own clock, seen by three cameras."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import HostError, MissingPackageError

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    # Draws without a window, by Mesa where there is no GPU. Read by MuJoCo when it is imported
    os.environ.setdefault("MUJOCO_GL", "egl")

_log = logging.getLogger(__name__)
SCENE = Path(__file__).with_name("arm.xml")
CAMERAS = ("wrist", "left", "right")
RENDERERS = ("opengl", "drawn")
# A pose in the middle of the ranges: seven joints in rad, the gripper open
START = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0, 0.0])
# Rows and columns: the policy sees the cameras over the shoulders no larger
PICTURE = (180, 320)
_OPEN_M = 0.04


def mujoco_package() -> Any:
    """The module; without its renderer where that finds no OpenGL, which fails its whole import.

    Raises:
        MissingPackageError: it is not installed.
    """
    if importlib.util.find_spec("mujoco") is None:
        raise MissingPackageError("mujoco", extra="sim", purpose="to simulate an arm")
    try:
        return importlib.import_module("mujoco")
    except Exception as error:  # noqa: BLE001  whatever a half-installed OpenGL raises
        _log.warning("MuJoCo finds no OpenGL by MUJOCO_GL=%s: %s", os.environ.get("MUJOCO_GL"), error)
        for name in [name for name in sys.modules if name.split(".")[0] in ("mujoco", "OpenGL")]:
            del sys.modules[name]
        os.environ["MUJOCO_GL"] = "disable"
        return importlib.import_module("mujoco")


class SimulatedArm:
    """The world. One thread commands and advances it; others may copy its state."""

    def __init__(self) -> None:
        """The arm at START, at rest."""
        self._mujoco = mujoco_package()
        self.model = self._mujoco.MjModel.from_xml_path(str(SCENE))
        self.data = self._mujoco.MjData(self.model)
        self._lock = threading.Lock()
        self._joints = [self.model.joint(f"joint{number}").qposadr[0] for number in range(1, 8)]
        self._finger = self.model.joint("finger_left").qposadr[0]
        self.data.qpos[self._joints] = START[:7]
        self.data.qpos[[self._finger, self.model.joint("finger_right").qposadr[0]]] = _OPEN_M
        self.command(START)
        self._mujoco.mj_forward(self.model, self.data)

    def state(self, positions: Optional[NDArray[np.float64]] = None) -> NDArray[np.float64]:
        """Seven joints in rad, the gripper's fraction closed: [8]. Now, or of MuJoCo's qpos at another moment."""
        qpos = self.data.qpos if positions is None else positions
        closed = 1.0 - float(qpos[self._finger]) / _OPEN_M
        return np.append(qpos[self._joints], np.clip(closed, 0.0, 1.0))

    def command(self, action: NDArray[np.float64]) -> None:
        """The controllers' next targets; DROID closes the gripper above 0.5."""
        with self._lock:
            self.data.ctrl[:7] = action[:7]
            self.data.ctrl[7:] = 0.0 if action[7] > 0.5 else _OPEN_M

    def advance_to(self, time_s: float) -> None:
        """Simulates until then."""
        with self._lock:
            while self.data.time + self.model.opt.timestep <= time_s + 1e-9:
                self._mujoco.mj_step(self.model, self.data)

    def copy_to(self, data: Any) -> None:
        """The present state, for a camera that takes its time."""
        with self._lock:
            self._mujoco.mj_copyData(data, self.model, self.data)


class Cameras:
    """Pictures of an arm. OpenGL's context is the thread's that takes the first one, and so must all others be."""

    def __init__(self, arm: SimulatedArm, size: tuple[int, int] = PICTURE, renderer: str = "opengl") -> None:
        """Opens nothing yet.

        Args:
            arm: what is seen.
            size: rows and columns.
            renderer: "opengl", MuJoCo's own, or "drawn", which needs none.
        """
        self._mujoco, self._arm, self._size, self._kind = mujoco_package(), arm, size, renderer
        self._data = self._mujoco.MjData(arm.model)
        self._renderer: Any = None

    def pictures(self) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float64], float]:
        """Camera -> uint8 [rows, columns, 3]; the positions of everything at that moment; the moment, s.

        Raises:
            HostError: there is no OpenGL here.
        """
        self._arm.copy_to(self._data)
        return {name: self._render(name) for name in CAMERAS}, self._data.qpos.copy(), float(self._data.time)

    def picture_of(self, positions: NDArray[np.float64], name: str) -> NDArray[np.uint8]:
        """A moment that is over, by what `pictures` or `SimulatedArm.data.qpos` had.

        Raises:
            HostError: there is no OpenGL here.
        """
        self._data.qpos[:] = positions
        self._mujoco.mj_forward(self._arm.model, self._data)
        return self._render(name)

    def close(self) -> None:
        """Frees the context, in its thread. Harmless when repeated."""
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()

    def _render(self, name: str) -> NDArray[np.uint8]:
        if self._renderer is None:
            self._renderer = self._open()
        self._renderer.update_scene(self._data, camera=name)
        picture: NDArray[np.uint8] = self._renderer.render().copy()
        return picture

    def _open(self) -> Any:
        if self._kind == "drawn":
            from examples.mujoco_arm.drawn import DrawnRenderer

            return DrawnRenderer(self._mujoco, self._arm.model, *self._size)
        try:
            return self._mujoco.Renderer(self._arm.model, *self._size)
        except Exception as error:  # each version and each platform of OpenGL fails in its own way
            raise HostError(
                "MuJoCo can't draw here",
                got=f"{type(error).__name__}: {error}",
                why=f"it needs OpenGL; MUJOCO_GL is {os.environ.get('MUJOCO_GL', 'not set')!r}",
                fix="without a screen: apt-get install libegl1 libgl1-mesa-dri, and MUJOCO_GL=egl; or --cameras drawn",
            ) from error
