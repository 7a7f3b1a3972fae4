"""Draws the way that a vehicle is told or predicted to take onto the picture of its front camera.

    python examples/draw_trajectory.py --image av_0.jpg --actions av_traj_left.json --out way.png

Actions: a JSON array of 9 numbers a row (translation, two columns of the rotation), each the camera's next pose seen
from the one before: what `av` takes for forward dynamics, and gives from inverse dynamics. Lens, height and track are
assumptions that options change; the camera's pitch is taken from the motion itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from motedge.errors import MotedgeError
from motedge.runtime.actions.camera import (
    FIELD_OF_VIEW_DEG,
    HEIGHT_M,
    LENSES,
    TRACK_M,
    Camera,
    pitch_from_motion,
    road_strip,
)
from motedge.runtime.actions.poses import trajectory_from_rows

SMOOTHING = 2  # drawn larger by this factor, then averaged
DENSE = 12  # points drawn between two poses, so that curves of the lens are curves
NOW, LATER = np.array([64, 224, 140]), np.array([255, 166, 48])


def between(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Points [T + 1, 2, 3] at fractional times [n], by straight lines."""
    lower = np.minimum(times.astype(int), len(points) - 2)
    part = (times - lower)[:, None, None]
    return points[lower] * (1 - part) + points[lower + 1] * part


def draw(picture: Image.Image, strip: np.ndarray, camera: Camera, rate_hz: float) -> tuple[Image.Image, int]:
    """The picture with the strip [T + 1, 2, 3] on it and a tick for each second; how many parts of it show."""
    large = picture.resize((picture.width * SMOOTHING, picture.height * SMOOTHING), Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", large.size)
    pen = ImageDraw.Draw(layer)
    times = np.linspace(0, len(strip) - 1, (len(strip) - 1) * DENSE + 1)
    flat, front = camera.project(between(strip, times).reshape(-1, 3))
    flat, front = flat.reshape(-1, 2, 2) * SMOOTHING, front.reshape(-1, 2).all(axis=1)
    inside = ((flat >= -large.width) & (flat <= 2 * large.width)).all(axis=(1, 2))
    drawn = 0
    for i in range(len(times) - 2, -1, -1):  # far parts first
        if not (front[i] and front[i + 1] and inside[i] and inside[i + 1]):
            continue
        colour = tuple(int(c) for c in NOW + (LATER - NOW) * times[i] / times[-1])
        corners = [tuple(p) for p in (flat[i, 0], flat[i, 1], flat[i + 1, 1], flat[i + 1, 0])]
        pen.polygon(corners, fill=(*colour, 120))
        for side in (0, 1):
            pen.line([tuple(flat[i, side]), tuple(flat[i + 1, side])], fill=(*colour, 255), width=2 * SMOOTHING)
        if i and abs(times[i] / rate_hz - round(times[i] / rate_hz)) < 1e-9:
            pen.line([tuple(p) for p in flat[i]], fill=(255, 255, 255, 255), width=2 * SMOOTHING)
        drawn += 1
    made = Image.alpha_composite(large.convert("RGBA"), layer).convert("RGB")
    return made.resize(picture.size, Image.Resampling.BOX), drawn


def main() -> int:
    """Writes the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, type=Path, help="picture of frame 0")
    parser.add_argument("--actions", required=True, type=Path, help="JSON array [T, 9]")
    parser.add_argument("--out", required=True, type=Path, help="picture to write")
    parser.add_argument("--lens", choices=LENSES, default="equidistant", help="default: %(default)s")
    parser.add_argument("--degrees", type=float, default=FIELD_OF_VIEW_DEG, help="from edge to edge")
    parser.add_argument("--height", type=float, default=HEIGHT_M, help="of the camera, m")
    parser.add_argument("--track", type=float, default=TRACK_M, help="from wheel to wheel, m")
    parser.add_argument("--pitch", type=float, help="how far the camera looks down, degrees (default: by the motion)")
    parser.add_argument("--rate", type=float, default=10.0, help="actions a second (default: %(default)s)")
    args = parser.parse_args()
    if not 0 < args.rate < float("inf"):
        parser.error("--rate: a finite number above 0")
    try:
        picture = Image.open(args.image).convert("RGB")
        way = trajectory_from_rows(np.array(json.loads(args.actions.read_text(encoding="utf-8")), np.float64))
        pitch = pitch_from_motion(way) if args.pitch is None else np.radians(args.pitch)
        camera = Camera.from_field_of_view(picture.width, picture.height, args.degrees, args.lens)
        strip = road_strip(way, height_m=args.height, track_m=args.track, pitch_rad=float(pitch))
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:
        print(f"can't read the picture or the actions\n  got:      {error}", file=sys.stderr)
        return 2
    made, drawn = draw(picture, strip, camera, args.rate)
    made.save(args.out)
    length = float(np.linalg.norm(np.diff(way[:, :3, 3], axis=0), axis=-1).sum())
    print(
        f"{args.out}: {length:.1f} m in {(len(way) - 1) / args.rate:g} s, camera {np.degrees(pitch):.1f} degrees down"
    )
    if not drawn:
        print("nothing of it is in the picture", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
