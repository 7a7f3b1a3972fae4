"""Statistics by which actions are normalised: `motedge.action_stats/v1`, or the framework's own files.

They belong to what a model was trained with, and are not part of a checkpoint: cosmos-framework keeps them beside its
data sets' code (normalizer_stats). Its files are read as they are: statistics in the blocks "global" and "global_raw",
the latter with the rotation as it was measured ("global" may leave rotations alone, from -1 to 1), or at the top, where
they count for both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from motedge.errors import DataError, closest
from motedge.files import write_json

SCHEMA = "motedge.action_stats/v1"
NAMES = ("mean", "std", "min", "max", "q01", "q99")
BLOCKS = ("global", "global_raw")
_KEYS = ("schema", "embodiment", "source", *BLOCKS)


@dataclass(frozen=True)
class ActionStats:
    """Statistics of each channel: {block: {name: fp64 [D]}}."""

    blocks: Mapping[str, Mapping[str, NDArray[np.float64]]]
    # Whose they are, and where they come from; empty where a file does not say
    embodiment: str = ""
    source: str = field(default="", compare=False)

    @property
    def width(self) -> int:
        """Number of channels."""
        return next(len(values) for block in self.blocks.values() for values in block.values())

    def first(self, width: int) -> ActionStats:
        """Those of the first channels, such as of one arm of two.

        Raises:
            DataError: more than there are, or none.
        """
        if not 0 < width <= self.width:
            raise DataError("statistics can't be cut so", expected=f"1 to {self.width} channels", got=width)
        blocks = {name: {key: each[:width] for key, each in block.items()} for name, block in self.blocks.items()}
        return ActionStats(blocks, self.embodiment, self.source)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        named: dict[str, Any] = {"schema": SCHEMA, "embodiment": self.embodiment, "source": self.source}
        blocks = {name: {key: each.tolist() for key, each in block.items()} for name, block in self.blocks.items()}
        return {**named, **blocks}

    def write(self, path: Union[str, Path]) -> None:
        """Writes the JSON form, whole or not at all."""
        write_json(path, self.to_dict())


def read_stats(path: Union[str, Path]) -> ActionStats:
    """Statistics of a file, motedge's or the framework's.

    Raises:
        DataError: the file is missing, no JSON, of another schema, or its numbers do not make sense.
    """
    where = Path(path)
    try:
        loaded = json.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{where.name}: can't be read", got=error.strerror, fix="name a file of statistics") from error
    except ValueError as error:
        raise DataError(f"{where.name}: no JSON", got=str(error)) from error
    if not isinstance(loaded, dict):
        raise DataError(f"{where.name}: no statistics", expected="a JSON object", got=type(loaded).__name__)
    return parse_stats(loaded, where.name)


def parse_stats(loaded: Mapping[str, Any], where: str = "statistics") -> ActionStats:
    """Statistics of a JSON object, motedge's or the framework's; `where` is what errors call it.

    Raises:
        DataError: another schema, an unknown key, none at all, or numbers that do not make sense.
    """
    if "schema" in loaded:
        if loaded["schema"] != SCHEMA:
            raise DataError(f"{where}: another schema", expected=SCHEMA, got=loaded["schema"])
        for key in loaded:
            if key not in _KEYS:
                raise DataError(f"{where}: unknown key {key!r}", fix=closest(key, _KEYS))
    raw = {name: loaded[name] for name in BLOCKS if name in loaded} or dict.fromkeys(BLOCKS, loaded)
    strict = "schema" in loaded
    blocks = {name: _block(block, f"{where}, {name}", strict) for name, block in raw.items()}
    widths = {len(values) for block in blocks.values() for values in block.values()}
    if len(widths) != 1:
        raise DataError(
            f"{where}: no statistics" if not widths else f"{where}: statistics of different widths",
            expected=f"arrays of one length, of {', '.join(NAMES)}",
            got=", ".join(map(str, sorted(widths))) or ", ".join(map(str, loaded)) or "nothing",
        )
    return ActionStats(
        MappingProxyType(blocks), str(loaded.get("embodiment", "")), str(loaded.get("source", "")) or where
    )


def _block(block: Any, where: str, strict: bool) -> Mapping[str, NDArray[np.float64]]:
    if not isinstance(block, Mapping):
        raise DataError(f"{where}: no statistics", expected="an object", got=type(block).__name__)
    unknown = [key for key in block if key not in NAMES]
    if strict and unknown:
        raise DataError(f"{where}: unknown key {unknown[0]!r}", fix=closest(unknown[0], NAMES))
    return MappingProxyType({name: _channels(block[name], f"{where}, {name}") for name in NAMES if name in block})


def _channels(values: Any, where: str) -> NDArray[np.float64]:
    try:
        made = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: no numbers", expected="a number for each channel", got=str(error)) from error
    if made.ndim != 1 or not made.size:
        raise DataError(f"{where}: wrong shape", expected="a number for each channel", got=list(made.shape))
    if not np.isfinite(made).all():
        raise DataError(f"{where}: NaN or infinity", got=f"channel {int(np.argmin(np.isfinite(made)))}")
    made.flags.writeable = False
    return made
