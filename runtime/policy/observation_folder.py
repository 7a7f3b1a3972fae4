"""An observation on disk: observation.json and one image file a camera. Format motedge.observation/v1.

A robot's, and a vehicle's, which has no state:

{"schema": "motedge.observation/v1", "views": {"wrist": "wrist.png", "left": null, "right": "right.png"},
 "joint_position": [7 numbers, rad], "gripper_position": fraction closed, "instruction": "...", "source": "..."}
{"schema": "motedge.observation/v1", "image": "image.png", "instruction": "...", "source": "..."}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, cast

import numpy as np

from motedge.errors import MissingPackageError, ObservationError, closest
from motedge.files import PathLike, atomic_path, write_json
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.upright import upright
from motedge.runtime.policy.views import VIEW_NAMES

SCHEMA = "motedge.observation/v1"
FILE = "observation.json"
_KEYS = ("schema", "views", "image", "joint_position", "gripper_position", "instruction", "source")


def read_observation(folder: PathLike, *, instruction: Optional[str] = None) -> Observation:
    """Reads an observation folder; `instruction` replaces the stored one.

    Raises:
        ObservationError: no observation there, another schema, an unknown key, or content that the policy can't take.
        MissingPackageError: Pillow is not installed.
    """
    root = Path(folder)
    path = root / FILE
    if not path.is_file():
        raise ObservationError(
            f"there is no observation in {root}", expected=f"a folder with {FILE}", fix="check the path"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ObservationError(f"{path} is not JSON", got=str(error)) from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        got = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise ObservationError(f"{path} is not an observation", expected=f'"schema": "{SCHEMA}"', got=got)
    for key in raw:
        if key not in _KEYS:
            raise ObservationError(f"{path}: unknown key {key!r}", fix=closest(key, _KEYS))
    image = raw.get("image")
    # Observation checks these three
    state: dict[str, Any] = {key: raw.get(key) for key in ("joint_position", "gripper_position", "instruction")}
    if instruction is not None:
        state["instruction"] = instruction
    return Observation(
        **state,
        views=None if image else read_views({name: _inside(root, file) for name, file in _views(raw, path).items()}),
        image=read_image(_inside(root, image)) if image else None,
        source=raw.get("source"),
    )


def write_observation(folder: PathLike, observation: Observation) -> Path:
    """Writes an observation folder (PNG images) and returns the path of its JSON file.

    Raises:
        MissingPackageError: Pillow is not installed.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    if observation.image is not None:
        pictures, files = {"image": observation.image}, cast("dict[str, Any]", {"image": "image.png"})
    else:
        pictures = dict(observation.host_views())
        files = {"views": {name: f"{name}.png" if name in pictures else None for name in VIEW_NAMES}}
    for name, pixels in pictures.items():
        with atomic_path(root / f"{name}.png") as partial:
            _pillow().fromarray(pixels).save(partial, format="PNG")
    state = {
        "joint_position": [float(f"{angle:.9g}") for angle in observation.joint_position.tolist()],
        "gripper_position": observation.gripper_position,
    }
    document = {
        "schema": SCHEMA,
        **files,
        **(state if observation.has_state else {}),
        "instruction": observation.instruction,
        "source": observation.source,
    }
    write_json(root / FILE, document)
    return root / FILE


def read_views(files: Mapping[str, Path]) -> dict[str, Image]:
    """Camera name -> image, uint8 RGB [rows, columns, 3]."""
    return {name: read_image(path) for name, path in files.items()}


def read_image(path: Path) -> Image:
    """An image file as uint8 RGB [rows, columns, 3], turned upright as its EXIF data says.

    Raises:
        ObservationError: no such file, not an image, or a damaged one.
        MissingPackageError: Pillow is not installed.
    """
    pillow = _pillow()
    try:
        with pillow.open(path) as picture:
            return np.asarray(upright(picture).convert("RGB"), dtype=np.uint8)
    except FileNotFoundError as error:
        raise ObservationError(f"there is no image {path}", fix="check the path") from error
    # Where EXIF data end too early, it is one of struct's
    except (OSError, ValueError, SyntaxError, struct.error, pillow.DecompressionBombError) as error:
        raise ObservationError(f"{path} is not an image that can be read", got=str(error)) from error


def _views(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    views = raw.get("views")
    if not isinstance(views, dict):
        raise ObservationError(f"{path} names no images", expected=f"views with {', '.join(VIEW_NAMES)}, or image")
    for name in views:
        if name not in VIEW_NAMES:
            raise ObservationError(f"{path}: unknown camera view {name!r}", fix=closest(str(name), VIEW_NAMES))
    return {name: file for name, file in views.items() if file is not None}


def _inside(root: Path, name: Any) -> Path:
    """A file of the folder; an observation from elsewhere must not make this read any file of the machine."""
    target = (root / str(name)).resolve()
    if not isinstance(name, str) or root.resolve() not in target.parents:
        raise ObservationError("an image lies outside the observation's folder", expected=f"below {root}", got=name)
    return target


def _pillow() -> Any:
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise MissingPackageError("pillow", extra="images", purpose="to read or write image files") from error
    return pillow
