"""A scene of MuJoCo drawn without OpenGL: floor, boxes, capsules and cylinders, the farthest first, in flat colours.

For machines on which MuJoCo's own renderer finds no OpenGL. No shadows, and what stands in front is decided by the
middles of things, which is right for a scene of small things on a large one.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SKY = (186, 203, 220)
_LIGHT = np.array([0.3, -0.4, 0.85]) / np.linalg.norm([0.3, -0.4, 0.85])
# Nearer than this nothing is drawn, m
_NEAR_M = 0.03
_FINER = 2
_CELLS = 16
_FACES = [(axis, side) for axis in range(3) for side in (-1, 1)]
Array = NDArray[np.float64]


class DrawnRenderer:
    """As much of mujoco.Renderer as `examples.mujoco_arm.arm.Cameras` uses."""

    def __init__(self, mujoco: Any, model: Any, rows: int, columns: int) -> None:
        """Takes the module, a model and a picture's size."""
        kinds = mujoco.mjtGeom
        self._plane, self._box = int(kinds.mjGEOM_PLANE), int(kinds.mjGEOM_BOX)
        self._round = (int(kinds.mjGEOM_CAPSULE), int(kinds.mjGEOM_CYLINDER))
        self._model, self._rows, self._columns = model, rows * _FINER, columns * _FINER
        self._picture = Image.new("RGB", (self._columns, self._rows))

    def update_scene(self, data: Any, camera: str) -> None:
        """Draws what a camera sees."""
        model, number = self._model, self._model.camera(camera).id
        self._eye, self._axes = data.cam_xpos[number].copy(), data.cam_xmat[number].reshape(3, 3).copy()
        self._focal = self._rows / 2 / np.tan(np.radians(model.cam_fovy[number]) / 2)
        self._picture = Image.new("RGB", (self._columns, self._rows), _SKY)
        pen = ImageDraw.Draw(self._picture)
        away = np.linalg.norm(data.geom_xpos - self._eye, axis=1)
        # The floor lies under everything, then what belongs to the world
        under = [(model.geom_type[at] != self._plane, model.geom_bodyid[at] != 0) for at in range(model.ngeom)]
        order = sorted(range(model.ngeom), key=lambda at: (*under[at], -away[at]))
        for at in order:
            kind, size = int(model.geom_type[at]), model.geom_size[at]
            place, axes, colour = data.geom_xpos[at], data.geom_xmat[at].reshape(3, 3), model.geom_rgba[at][:3]
            if kind == self._plane:
                self._draw_plane(pen, place, axes, size, colour)
            elif kind == self._box:
                self._draw_box(pen, place, axes, size, colour)
            elif kind in self._round:
                ends = place + np.outer([-size[1], size[1]], axes[:, 2])
                self._draw_round(pen, ends, size[0], colour)

    def render(self) -> NDArray[np.uint8]:
        """uint8 [rows, columns, 3]."""
        size = (self._columns // _FINER, self._rows // _FINER)
        return np.asarray(self._picture.resize(size, Image.Resampling.BOX))

    def close(self) -> None:
        """Nothing to free."""

    def _flat(self, points: Array) -> tuple[Array, Array]:
        """Pixels [n, 2], and how far ahead of the camera [n], m."""
        seen = (points - self._eye) @ self._axes
        ahead = -seen[:, 2]
        scale = self._focal / np.maximum(ahead, _NEAR_M)
        middle = np.array([self._columns, self._rows]) / 2
        return middle + np.stack([seen[:, 0], -seen[:, 1]], 1) * scale[:, None], ahead

    def _polygon(self, pen: ImageDraw.ImageDraw, corners: Array, normal: Array, colour: Array) -> None:
        flat, ahead = self._flat(corners)
        if (ahead > _NEAR_M).all() and (corners[0] - self._eye) @ normal < 0:
            shade = 0.6 + 0.4 * max(float(normal @ _LIGHT), 0.0)
            pen.polygon([tuple(p) for p in flat], fill=_rgb(colour * shade))

    def _draw_plane(self, pen: ImageDraw.ImageDraw, place: Array, axes: Array, size: Array, colour: Array) -> None:
        """In cells, so that those before the camera are seen where others are behind it."""
        edges = np.linspace(-1, 1, _CELLS + 1)
        for x, y in product(range(_CELLS), range(_CELLS)):
            corners = [(edges[x + i] * size[0], edges[y + j] * size[1], 0) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
            self._polygon(pen, place + np.array(corners) @ axes.T, axes[:, 2], colour)

    def _draw_box(self, pen: ImageDraw.ImageDraw, place: Array, axes: Array, size: Array, colour: Array) -> None:
        for axis, side in _FACES:
            others = [other for other in range(3) if other != axis]
            corners = np.zeros((4, 3))
            corners[:, axis] = side * size[axis]
            for column, signs in zip(others, ((-1, 1, 1, -1), (-1, -1, 1, 1))):
                corners[:, column] = np.array(signs) * size[column]
            self._polygon(pen, place + corners @ axes.T, side * axes[:, axis], colour)

    def _draw_round(self, pen: ImageDraw.ImageDraw, ends: Array, radius: float, colour: Array) -> None:
        flat, ahead = self._flat(ends)
        if (ahead <= _NEAR_M).any():
            return
        width = 2 * radius * self._focal / float(ahead.mean())
        for share, part in ((1.0, 0.72), (0.62, 0.92), (0.25, 1.0)):
            # Three strips, each lighter and narrower, look round
            pen.line([tuple(p) for p in flat], fill=_rgb(colour * part), width=max(round(width * share), 1))
            for x, y in flat:
                half = width * share / 2
                pen.ellipse((x - half, y - half, x + half, y + half), fill=_rgb(colour * part))


def _rgb(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(255 * part, 0, 255)) for part in colour)
    return red, green, blue
