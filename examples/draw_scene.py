"""Draws a robot table and writes it as an observation folder, for people without camera images of a robot.

    python examples/draw_scene.py --out scene --seed 3
    motedge run BUNDLE --observation scene --plot actions.png

The pictures are drawn, not photographed: a model trained on cameras will answer, but its answer means little.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from motedge.quant.datasets.franka import gripper_pose, joint_origins
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation

COLUMNS, ROWS = 640, 360
SMOOTHING = 2  # drawn larger by this factor, then averaged
TABLE = (0.05, 0.95, -0.62, 0.62)  # x from, x to, y from, y to, in m; the robot stands at the origin
CUBE = 0.056  # m
LIGHT = np.array([-0.35, 0.45, 1.0]) / np.linalg.norm([-0.35, 0.45, 1.0])
COLOURS = {"red": (205, 62, 54), "green": (72, 158, 92), "blue": (58, 104, 190), "yellow": (231, 184, 62)}


@dataclass(frozen=True)
class Face:
    """A flat polygon."""

    corners: np.ndarray  # [n, 3], m
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Limb:
    """A rounded bar."""

    ends: np.ndarray  # [2, 3], m
    radius: float  # m
    colour: tuple[int, int, int]


Shape = Union[Face, Limb]


class Camera:
    """A pinhole camera."""

    def __init__(self, eye: np.ndarray, target: np.ndarray, up: np.ndarray, focal: float) -> None:
        """eye, target, up: [3], m. focal: in widths of the picture."""
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        self.eye, self.axes, self.focal = eye, np.stack([right, np.cross(forward, right), forward]), focal

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n, 3] in m -> picture coordinates [n, 2] (column, row) and depths [n] in m."""
        local = (points - self.eye) @ self.axes.T
        depth = np.maximum(local[:, 2], 0.02)
        scale = self.focal * COLUMNS * SMOOTHING
        centre = np.array([COLUMNS, ROWS]) * SMOOTHING / 2
        return local[:, :2] / depth[:, None] * scale + centre, depth


def box(centre: np.ndarray, size: np.ndarray, colour: tuple[int, int, int], axes: np.ndarray) -> list[Face]:
    """Six faces of a box; axes: rows are its directions."""
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (-0.5, 0.5):
            middle = centre + side * size[axis] * axes[axis]
            steps = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
            corners = [middle + a * size[u] * axes[u] + b * size[v] * axes[v] for a, b in steps]
            brightness = 0.60 + 0.45 * max(float(np.sign(side) * axes[axis] @ LIGHT), -0.35)
            faces.append(Face(np.array(corners), tuple(int(min(255, c * brightness)) for c in colour)))  # type: ignore[arg-type]
    return faces


def turned(angle_rad: float) -> np.ndarray:
    """Axes of something that stands upright, turned about the vertical."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def bowl(centre: np.ndarray) -> list[Face]:
    """An open bowl of 24 slats and its dark inside."""
    around = np.linspace(0, 2 * np.pi, 25)
    ring = np.stack([np.cos(around), np.sin(around), np.zeros(25)], 1)
    low, high = centre + 0.045 * ring, centre + 0.078 * ring + np.array([0, 0, 0.055])
    faces = [Face(low[:-1], (120, 124, 134))]
    for i in range(24):
        shade = 0.62 + 0.38 * max(float(ring[i] @ LIGHT), -0.5)
        colour = tuple(int(c * shade) for c in (226, 228, 232))
        faces.append(Face(np.array([low[i], low[i + 1], high[i + 1], high[i]]), colour))  # type: ignore[arg-type]
    return faces


def robot(joints: np.ndarray, gripper: float) -> list[Shape]:
    """The arm as limbs, the hand as boxes."""
    points = joint_origins(joints)
    shapes: list[Shape] = []
    for number, (start, end) in enumerate(zip(points[:-1], points[1:])):
        if np.linalg.norm(end - start) > 1e-6:
            radius = 0.062 - 0.0035 * number
            shapes.append(Limb(np.array([start, end]), radius, (236, 238, 241) if number % 2 else (214, 218, 224)))
    return shapes + hand(joints, gripper)


def hand(joints: np.ndarray, gripper: float) -> list[Shape]:
    """Palm and two fingers; gripper: fraction closed."""
    origin, axes = gripper_pose(joints)
    shapes: list[Shape] = list(box(origin - 0.065 * axes[2], np.array([0.06, 0.19, 0.06]), (72, 76, 84), axes))
    opening = 0.006 + 0.036 * (1 - gripper)
    for side in (-1, 1):
        finger = origin + side * (opening + 0.009) * axes[1] - 0.005 * axes[2]
        shapes += box(finger, np.array([0.022, 0.018, 0.075]), (40, 43, 50), axes)
    return shapes


def backdrop(camera: Camera) -> Image.Image:
    """Wall and floor as one vertical gradient, the table with its edge on top."""
    rows = np.linspace(0, 1, ROWS * SMOOTHING)[:, None]
    wall, floor = np.array([196, 204, 212]), np.array([104, 98, 94])
    blend = 1 / (1 + np.exp(-(rows - 0.42) * 14))
    picture = Image.fromarray(
        np.repeat((wall + (floor - wall) * blend)[:, None], COLUMNS * SMOOTHING, 1).astype(np.uint8)
    )
    x0, x1, y0, y1 = TABLE
    table = box(
        np.array([(x0 + x1) / 2, (y0 + y1) / 2, -0.02]), np.array([x1 - x0, y1 - y0, 0.04]), (203, 170, 128), np.eye(3)
    )
    paint(picture, camera, list(table))
    draw = ImageDraw.Draw(picture, "RGBA")
    for y in np.linspace(y0, y1, 9)[1:-1]:  # joints between the boards
        line, _ = camera.project(np.array([[x0, y, 0.0], [x1, y, 0.0]]))
        draw.line([tuple(p) for p in line], fill=(120, 92, 60, 70), width=SMOOTHING)
    return picture


def shadows(picture: Image.Image, camera: Camera, shapes: list[Shape]) -> None:
    """Soft shadows on the table."""
    mask = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(mask)
    for shape in shapes:
        points = shape.corners if isinstance(shape, Face) else shape.ends
        ground = points - points[:, 2:] / LIGHT[2] * LIGHT
        flat, depth = camera.project(ground)
        if isinstance(shape, Face):
            draw.polygon([tuple(p) for p in flat], fill=105)
        else:
            width = shape.radius * 2 * camera.focal * COLUMNS * SMOOTHING / depth.mean()
            draw.line([tuple(p) for p in flat], fill=105, width=max(1, int(width)))
    soft = mask.filter(ImageFilter.GaussianBlur(7 * SMOOTHING))
    picture.paste(Image.new("RGB", picture.size, (38, 30, 26)), (0, 0), soft)


def paint(picture: Image.Image, camera: Camera, shapes: list[Shape]) -> None:
    """Far shapes first."""

    def distance(shape: Shape) -> float:
        points = shape.corners if isinstance(shape, Face) else shape.ends
        return float(np.linalg.norm(points.mean(0) - camera.eye))

    draw = ImageDraw.Draw(picture)
    for round_ones, group in itertools.groupby(
        sorted(shapes, key=distance, reverse=True), key=lambda shape: isinstance(shape, Limb)
    ):
        if round_ones:
            paint_limbs(draw, camera, [shape for shape in group if isinstance(shape, Limb)])
            continue
        for shape in group:
            flat, depth = camera.project(shape.corners)  # type: ignore[union-attr]
            if depth.min() > 0.03:
                draw.polygon([tuple(p) for p in flat], fill=shape.colour)


def paint_limbs(draw: ImageDraw.ImageDraw, camera: Camera, limbs: list[Limb]) -> None:
    """Layer by layer over all of them, lighter to the middle, so that they look round and melt at the joints."""
    for inset, shade in ((1.0, 0.55), (0.88, 0.72), (0.7, 0.86), (0.5, 0.96), (0.25, 1.03)):
        for limb in limbs:
            flat, depth = camera.project(limb.ends)
            colour = tuple(int(min(255, c * shade)) for c in limb.colour)
            radius = limb.radius * inset * camera.focal * COLUMNS * SMOOTHING / depth.mean()
            flat = flat - [0.12 * (1 - inset) * radius, 0.18 * (1 - inset) * radius]  # the light comes from there
            draw.line([tuple(p) for p in flat], fill=colour, width=max(1, int(2 * radius)))
            for x, y in flat:
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def render(camera: Camera, shapes: list[Shape], rng: np.random.Generator) -> np.ndarray:
    """One view, uint8 [360, 640, 3], with a little sensor noise and vignetting."""
    picture = backdrop(camera)
    shadows(picture, camera, shapes)
    paint(picture, camera, shapes)
    small = np.asarray(picture.resize((COLUMNS, ROWS), Image.Resampling.BOX), dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    small = small * (1 - 0.13 * (x**2 + y**2))[..., None] + rng.normal(0, 1.6, small.shape)
    return np.clip(small, 0, 255).astype(np.uint8)


def scene(rng: np.random.Generator) -> tuple[list[Shape], str]:
    """Cubes and a bowl at random places that do not overlap; and an instruction that fits."""
    places: list[np.ndarray] = []
    while len(places) < 4:
        place = np.array([rng.uniform(0.40, 0.68), rng.uniform(-0.26, 0.26), 0.0])
        if all(np.linalg.norm(place - other) > 0.16 for other in places):
            places.append(place)
    names = rng.permutation(list(COLOURS))[:3]
    shapes: list[Shape] = list(bowl(places[0]))
    for name, place in zip(names, places[1:]):
        raised = place + np.array([0, 0, CUBE / 2])
        shapes += box(raised, np.full(3, CUBE), COLOURS[str(name)], turned(rng.uniform(0, np.pi / 2)))
    return shapes, f"Put the {names[0]} cube into the bowl"


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="another scene for each number")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    # Near the pose in which DROID's episodes start, a little over the table
    joints = np.array([0.0, -0.2, 0.0, -2.35, 0.0, 2.15, 0.0]) + rng.uniform(-0.12, 0.12, 7)
    gripper = float(np.round(rng.uniform(0.0, 0.15), 3))
    things, instruction = scene(rng)
    origin, axes = gripper_pose(joints)
    up = np.array([0.0, 0.0, 1.0])
    middle = np.array([0.42, 0.0, 0.20])
    cameras = {
        "left": Camera(np.array([-0.22, 0.80, 0.80]), middle, up, 0.66),
        "right": Camera(np.array([-0.22, -0.80, 0.80]), middle, up, 0.66),
        "wrist": Camera(
            origin - 0.10 * axes[2] + 0.075 * axes[0], origin + 0.14 * axes[2] + 0.02 * axes[0], axes[0], 0.62
        ),
    }
    views = {}
    for name, camera in cameras.items():
        body = hand(joints, gripper) if name == "wrist" else robot(joints, gripper)
        views[name] = render(camera, things + body, rng)
    source = f"drawn by examples/draw_scene.py --seed {args.seed}"
    path = write_observation(args.out, Observation(joints, gripper, instruction, views=views, source=source))
    print(f"{path}: {', '.join(views)}; {instruction!r}")


if __name__ == "__main__":
    main()
