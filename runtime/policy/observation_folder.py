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
_MADE_BY = "motedge run BUNDLE --views wrist=FILE,... --record DIR writes such folders"
_JSON_KINDS = ((dict, "an object"), (list, "a list"), (str, "the text"), ((bool, int, float), "the value"))
_KEYS = ("schema", "views", "image", "joint_position", "gripper_position", "instruction", "source")


def read_observation(folder: PathLike, *, instruction: Optional[str] = None) -> Observation:
    """Reads an observation folder; `instruction` replaces the stored one.

    Raises:
        ObservationError: no observation there, another schema, an unknown key, or content that the policy can't take.
        MissingPackageError: Pillow is not installed.
    """
    root = Path(folder)
    path = root / FILE
    raw = _document(root, path)
    image = _named(path, "image", raw["image"]) if raw.get("image") else None
    views = {} if image else _views(raw, path)
    if not image and raw.get("joint_position") is None:
        raise ObservationError(f"{path}: joint_position is missing", expected="7 joint angles in rad, beside views")
    read: dict[str, Any] = {
        "views": None if image else read_views({name: _inside(root, file) for name, file in views.items()}),
        "image": read_image(_inside(root, image)) if image else None,
    }
    # Observation checks these three
    state: dict[str, Any] = {key: raw.get(key) for key in ("joint_position", "gripper_position", "instruction")}
    if instruction is not None:
        state["instruction"] = instruction
    try:
        return Observation(**state, **read, source=raw.get("source"))
    except ObservationError as error:
        told = {name: getattr(error, name) for name in ("expected", "got", "why", "fix")}
        raise ObservationError(f"{path}: {error.what}", **told) from error


def _document(root: Path, path: Path) -> dict[str, Any]:
    """The content of observation.json as far as it has the right keys."""
    if root.is_file():
        raise ObservationError(
            f"{root} is a file, not an observation",
            expected=f"a folder with {FILE} and its images",
            fix=f"give its folder: {root.parent}" if root.name == FILE else _MADE_BY,
        )
    if not path.is_file():
        raise ObservationError(
            f"there is no observation in {root}",
            expected=f"a folder with {FILE}",
            fix="check the path" if root.is_dir() else f"check the path; {_MADE_BY}",
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ObservationError(
            f"{path} is not JSON", expected="one object in UTF-8", got=str(error), fix=_MADE_BY
        ) from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        got = (repr(raw["schema"]) if "schema" in raw else "no schema") if isinstance(raw, dict) else _kind(raw)
        raise ObservationError(
            f"{path} is not an observation", expected=f'an object with "schema": "{SCHEMA}"', got=got, fix=_MADE_BY
        )
    for key in raw:
        if key not in _KEYS:
            raise ObservationError(f"{path}: unknown key {key!r}", fix=closest(key, _KEYS))
    if raw.get("image") and raw.get("views"):
        raise ObservationError(f"{path} has both image and views", expected="one of them")
    if not isinstance(raw.get("source"), (str, type(None))):
        raise ObservationError(f"{path}: source is not text", expected="text or null", got=_kind(raw["source"]))
    return raw


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
    """Camera -> file name."""
    views = raw.get("views")
    if not isinstance(views, dict):
        raise ObservationError(
            f"{path} names no images",
            expected=f"views, an object with {', '.join(VIEW_NAMES)}; or image, a file's name",
            got="neither" if views is None else f"views is {_kind(views)}",
        )
    for name in views:
        if name not in VIEW_NAMES:
            raise ObservationError(f"{path}: unknown camera view {name!r}", fix=closest(str(name), VIEW_NAMES))
    return {name: _named(path, f"view {name}", file) for name, file in views.items() if file is not None}


def _named(path: Path, what: str, name: Any) -> str:
    if not isinstance(name, str):
        raise ObservationError(f"{path}: {what} is not a file's name", expected="text", got=_kind(name))
    return name


def _kind(value: Any) -> str:
    """What JSON calls it, with the value itself where it is short."""
    for kinds, words in _JSON_KINDS:
        if isinstance(value, kinds):
            return words if kinds in (dict, list) else f"{words} {json.dumps(value)}"
    return "null"


def _inside(root: Path, name: str) -> Path:
    """A file of the folder; an observation from elsewhere must not make this read any file of the machine."""
    target = (root / name).resolve()
    if root.resolve() not in target.parents:
        raise ObservationError("an image lies outside the observation's folder", expected=f"below {root}", got=name)
    return target


def _pillow() -> Any:
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise MissingPackageError("pillow", extra="images", purpose="to read or write image files") from error
    return pillow
