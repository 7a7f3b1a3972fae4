"""Shape sets: the resolution, frames, rows and rates that a bundle's graphs are made for.

Rows and columns of the latent are fixed in a graph; frames T, action rows A and prompt length U stay dynamic within
the ranges given here. Sources: the DROID serving protocol and the AV reference workload, docs/concepts.md.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from motedge.checkpoint.config import PATCH
from motedge.errors import UsageError, closest
from motedge.runtime.generate.buckets import BUCKETS, IMAGE_BUCKETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VAE_STRIDE = 16  # pixels per latent cell
FRAMES_PER_LATENT = 4  # pixel frames per latent frame after the first


class _Kind(NamedTuple):
    words: str
    test: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# By the annotation of a field
_FITS = {
    "str": _Kind("a name", lambda v: isinstance(v, str) and v != ""),
    "int": _Kind("a whole number", _is_whole),
    "float": _Kind("a number above 0", lambda v: (_is_whole(v) or isinstance(v, float)) and 0 < v < math.inf),
    "tuple[int, int]": _Kind(
        "two whole numbers, [rows, columns]", lambda v: isinstance(v, tuple) and len(v) == 2 and all(map(_is_whole, v))
    ),
}


@dataclass(frozen=True)
class ShapeSet:
    """One named shape set. Sizes are (rows, columns)."""

    name: str
    # Pixels given to the VAE encoder; multiples of 16
    canvas: tuple[int, int]
    # Pixels of the canvas that show the scene; the rest is padding and is cropped from the latent
    content: tuple[int, int]
    # Pixel frames of a request, 4k + 1
    frames: int
    # Action rows of a request, a leading state row included
    actions: int
    # Frames and action rows per second
    fps: float
    # Largest T, A and U that the graphs accept
    max_latent_frames: int
    max_actions: int
    max_prompt_tokens: int = 512
    # Prompt length that engines are tuned for
    opt_prompt_tokens: int = 160
    # Smallest T and A that the graphs accept: 1 for images, 0 where nothing is to act
    min_latent_frames: int = 2
    min_actions: int = 2

    def __post_init__(self) -> None:
        self._check_types()
        if any(size <= 0 or size % VAE_STRIDE for size in self.canvas):
            raise UsageError(
                f"shape set {self.name!r}: the canvas does not fit the VAE",
                expected=f"rows and columns that are multiples of {VAE_STRIDE}",
                got=self.canvas,
            )
        if any(not VAE_STRIDE <= inner <= outer for inner, outer in zip(self.content, self.canvas, strict=True)):
            raise UsageError(
                f"shape set {self.name!r}: the content does not lie within the canvas",
                expected=f"{VAE_STRIDE} to {self.canvas} (rows, columns)",
                got=self.content,
            )
        if self.frames < 1 or (self.frames - 1) % FRAMES_PER_LATENT:
            raise UsageError(f"shape set {self.name!r}: frames must be 4k + 1", got=self.frames)
        for name, low, value, limit in (
            ("min_latent_frames", 1, self.min_latent_frames, 2),
            ("min_actions", 0, self.min_actions, 2),
            ("latent frames", self.min_latent_frames, self.latent_frames, self.max_latent_frames),
            ("actions", self.min_actions, self.actions, self.max_actions),
            ("opt_prompt_tokens", 2, self.opt_prompt_tokens, self.max_prompt_tokens),
            # A graph is traced with a range of each that starts at two
            ("max_latent_frames", 3, self.max_latent_frames, sys.maxsize),
            ("max_actions", 3, self.max_actions, sys.maxsize),
        ):
            if not low <= value <= limit:
                expected = f"{low} to {limit}" if limit < sys.maxsize else f"at least {low}"
                raise UsageError(f"shape set {self.name!r}: {name} out of range", expected=expected, got=value)

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value, fits = getattr(self, field.name), _FITS[str(field.type)]
            if not fits.test(value):
                raise UsageError(
                    f"shape set {self.name!r}: {field.name} is of a wrong kind", expected=fits.words, got=repr(value)
                )

    @property
    def grid(self) -> tuple[int, int]:
        """Latent rows and columns (h, w) of the content."""
        return self.content[0] // VAE_STRIDE, self.content[1] // VAE_STRIDE

    @property
    def latent_frames(self) -> int:
        """T of a request."""
        return 1 + (self.frames - 1) // FRAMES_PER_LATENT

    @property
    def tokens_per_frame(self) -> int:
        """Vision tokens of one latent frame."""
        return -(-self.grid[0] // PATCH) * -(-self.grid[1] // PATCH)

    def to_dict(self) -> dict[str, Any]:
        """JSON form for the manifest, with the derived latent size."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        # What bundles had before there was a choice is not said
        for name in ("min_latent_frames", "min_actions"):
            if values[name] == 2:
                del values[name]
        return {**values, "latent": [self.latent_frames, *self.grid]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ShapeSet:
        """Reads the JSON form back."""
        known = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k in known}
        return cls(**values)


def _media(tier: int, canvas: tuple[int, int]) -> ShapeSet:
    """Every mode at one resolution: from an image to 189 frames (Nano's default), with actions or without."""
    rows, columns = canvas
    # 121 frames are Edge's default; tier 720 is that of Nano and Super
    frames = 121 if tier in (256, 480) else 189
    return ShapeSet(
        f"media-{columns}x{rows}",
        canvas,
        canvas,
        frames,
        0,
        24.0,
        max_latent_frames=48,
        max_actions=189,
        max_prompt_tokens=4096,
        opt_prompt_tokens=512,
        min_latent_frames=1,
        min_actions=0,
    )


def _images(canvas: tuple[int, int]) -> ShapeSet:
    """Images alone: as few frames and rows as a graph can be traced for."""
    media = _media(480, canvas)
    return dataclasses.replace(media, frames=1, max_latent_frames=3, max_actions=3)


SHAPE_SETS = {
    "droid": ShapeSet("droid", (544, 736), (540, 640), 33, 33, 15.0, max_latent_frames=9, max_actions=65),
    "av": ShapeSet("av", (480, 832), (480, 832), 61, 60, 10.0, max_latent_frames=16, max_actions=121),
    **{each.name: each for tier, sizes in BUCKETS.items() for each in (_media(tier, size) for size in sizes)},
    **{each.name: each for sizes in IMAGE_BUCKETS.values() for each in map(_images, sizes)},
}


def load_shape_set(name: str) -> ShapeSet:
    """A shape set by name, or from a TOML file with the fields of `ShapeSet`.

    Raises:
        UsageError: unknown name or key; the message names the closest.
    """
    if not name.endswith(".toml"):
        if name not in SHAPE_SETS:
            raise UsageError(f"unknown shape set {name!r}", fix=f"{closest(name, SHAPE_SETS)}; or a .toml file")
        return SHAPE_SETS[name]
    try:
        raw: Mapping[str, Any] = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the shape set {name}", got=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not TOML", got=str(error)) from error
    known = {f.name for f in dataclasses.fields(ShapeSet)}
    for key in raw:
        if key not in known:
            raise UsageError(f"{name}: unknown key {key!r}", fix=closest(key, known))
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    try:
        return ShapeSet(**{"name": Path(name).stem, **values})
    except TypeError as error:
        raise UsageError(f"{name}: a field is missing", got=str(error)) from error
