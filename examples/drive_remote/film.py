"""Pictures of a drive: the sight from above drawn large, the plan on it, and in words what the car was told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.drive_remote.loop import Log, Moment
from examples.train_small.road.camera import CAR_AT, METRES_A_PIXEL, SIDE, Camera
from examples.train_small.road.expert import RATE_HZ, planar_trajectory
from motedge.files import atomic_path

LARGE, _BAR = 480, 76
_TRACK_M, _DENSE = 1.7, 4
_NOW, _LATER = np.array([70, 235, 150]), np.array([255, 160, 40])
_INK, _PALE, _DARK = (255, 255, 255), (176, 184, 192), (24, 27, 31)


class FilmMaker:
    """Draws moments of one drive; needs the simulator's world as it was driven."""

    def __init__(self, env: Any, instructions: Sequence[str]) -> None:
        """Takes gymnasium's environment, and the instruction of each leg."""
        self._camera, self._told = Camera(env, LARGE), instructions
        self._scale = LARGE / SIDE / METRES_A_PIXEL
        self._large, self._small = ImageFont.load_default(21), ImageFont.load_default(14)

    def frame(self, moment: Moment) -> Image.Image:
        """RGB, 480 x 556."""
        sight = Image.fromarray(self._camera.picture(_car(moment))).convert("RGBA")
        layer = Image.new("RGBA", (2 * LARGE, 2 * LARGE))
        self._draw_plan(ImageDraw.Draw(layer), moment)
        sight = Image.alpha_composite(sight, layer.resize(sight.size, Image.Resampling.BOX)).convert("RGB")
        made = Image.new("RGB", (LARGE, LARGE + _BAR), _DARK)
        made.paste(sight, (0, 0))
        pen = ImageDraw.Draw(made)
        seen, at = Image.fromarray(moment.plan.sight.picture), LARGE - SIDE - 12
        pen.rectangle((at - 2, 10, at + SIDE + 1, 13 + SIDE), fill=_INK)
        made.paste(seen, (at, 12))
        pen.text((at - 2, 14 + SIDE), "what the model sees", _INK, ImageFont.load_default(10))
        pen.text((14, LARGE + 10), f"\u201c{self._told[moment.leg]}\u201d", _INK, self._large)
        side = "left" if moment.lateral_m < 0 else "right"
        age_s = moment.time_s - moment.plan.sight.time_s
        words = f"{abs(moment.speed_m_s):4.1f} m/s    {abs(moment.lateral_m):3.1f} m {side} of the middle    "
        words += f"chunk in {moment.plan.round_trip_ms:.0f} ms, {age_s:.1f} s old"
        pen.text((14, LARGE + 44), words + ("" if moment.kind == "fresh" else "  BRAKING"), _PALE, self._small)
        return made

    def _draw_plan(self, pen: ImageDraw.ImageDraw, moment: Moment) -> None:
        """What is left of the plan: a strip as wide as the car, a point for each row."""
        poses = planar_trajectory(moment.plan.rows)
        left = min(max(moment.time_s - moment.plan.sight.time_s, 0.0) * RATE_HZ, len(poses) - 1.01)
        rows = np.linspace(left, len(poses) - 1, max(round((len(poses) - 1 - left) * _DENSE), 2))
        places = np.stack([np.interp(rows, np.arange(len(poses)), poses[:, axis]) for axis in (0, 1)], -1)
        if np.hypot(*(places[-1] - places[0])) < 0.2:
            return
        along = np.gradient(places, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-6)[:, None]
        beside = np.stack([along[:, 1], -along[:, 0]], -1) * _TRACK_M / 2
        edges = np.stack([self._pixels(moment, places - beside), self._pixels(moment, places + beside)], 1)
        for i in range(len(rows) - 2, -1, -1):
            colour = tuple(int(c) for c in _NOW + (_LATER - _NOW) * rows[i] / (len(poses) - 1))
            corners = [tuple(p) for p in (edges[i, 0], edges[i, 1], edges[i + 1, 1], edges[i + 1, 0])]
            pen.polygon(corners, fill=(*colour, 120))
            for side in (0, 1):
                pen.line([tuple(edges[i, side]), tuple(edges[i + 1, side])], fill=(*colour, 255), width=4)
        for x, y in self._pixels(moment, poses[int(np.ceil(left)) :, :2]):
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(255, 255, 255, 235))

    def _pixels(self, moment: Moment, places: np.ndarray) -> np.ndarray:
        """Places (right, ahead) seen from the plan's pose, in pixels of a layer twice as fine as the picture."""
        then, now = moment.plan.sight.pose, moment.pose
        world = _turned(places, then[2]) + then[:2]
        right, ahead = _turned(world - now[:2], -now[2]).T
        centre = np.array(CAR_AT) * LARGE / SIDE
        return 2 * np.stack([centre[0] + right * self._scale, centre[1] - ahead * self._scale], -1)


def frames_of(maker: FilmMaker, log: Log, every: int = 1) -> Iterator[Image.Image]:
    """Every so many-th moment."""
    return (maker.frame(moment) for moment in log.moments[::every])


def write_picture(path: Path, maker: FilmMaker, log: Log) -> None:
    """Writes the moment whose plan bends most, as png."""
    bends = [abs(float(planar_trajectory(moment.plan.rows)[-1, 2])) for moment in log.moments]
    with atomic_path(path) as part:
        maker.frame(log.moments[int(np.argmax(bends))]).save(part, format="png", optimize=True)


def _turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """(right, ahead) [n, 2] of something with that yaw, in the axes that it is counted in."""
    sine, cosine = np.sin(yaw), np.cos(yaw)
    return np.stack([points[:, 0] * cosine - points[:, 1] * sine, points[:, 0] * sine + points[:, 1] * cosine], -1)


class _InTheWorld:
    """Box2D's transform of corners that are in the world already."""

    def __mul__(self, corner: Any) -> Any:
        return corner


def _car(moment: Moment) -> Any:
    """As much of gymnasium's car as the camera looks at."""
    parts = [
        SimpleNamespace(
            color=colour,
            transform=_InTheWorld(),
            fixtures=[SimpleNamespace(shape=SimpleNamespace(vertices=list(corners)))],
        )
        for colour, corners in moment.parts
    ]
    hull = SimpleNamespace(position=tuple(moment.pose[:2]), angle=float(moment.pose[2]))
    return SimpleNamespace(hull=hull, drawlist=parts)
