"""A folder of images with their states in states.csv.

Columns: image (the composed picture), or wrist, left and right (cameras; an empty cell is a missing one); joint_1 to
joint_7 in rad; gripper, fraction closed; optional instruction, episode, index.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import DataError, ObservationError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_image
from motedge.runtime.policy.views import VIEW_NAMES

FILE = "states.csv"
_JOINTS = tuple(f"joint_{number}" for number in range(1, 8))


@dataclass(frozen=True)
class _Row:
    """One line of the table."""

    # The file and the line, in words
    where: str
    # "image" or camera name -> file
    files: dict[str, Path]
    # Seven angles in rad
    joints: list[float]
    # Fraction closed
    gripper: float
    instruction: str


class ImageFolder:
    """Rows of states.csv with their image files."""

    kind = "images"
    notes: tuple[str, ...] = ()

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """Reads the table.

        Raises:
            DataError: a missing column or image, or a row that is not made of numbers; the message names the line.
        """
        self.root, self._instruction = root.resolve(), instruction
        self.name = self.root.name
        columns, lines = self._read_table()
        self._cameras = [name for name in ("image", *VIEW_NAMES) if name in columns]
        missing = [name for name in (*_JOINTS, "gripper") if name not in columns]
        if missing or not self._cameras:
            lacking = missing or ["image"]
            raise DataError(
                f"{root / FILE} has no column {lacking[0]}",
                expected="image, or wrist, left, right; joint_1 to joint_7; gripper",
                got=", ".join(columns) or "no header",
            )
        self._rows: dict[Moment, _Row] = {}
        for number, cells in lines:
            row = self._row(f"{root / FILE}, line {number}", cells)
            index = cells.get("index") or str(number - 2)
            if not index.isdecimal():
                raise DataError(f"{row.where}: index is not a whole number", got=repr(index))
            moment = Moment(cells.get("episode") or "", int(index))
            if moment in self._rows:
                same = self._rows[moment].where.rpartition(" ")[2]
                raise DataError(f"{row.where}: episode and index are those of line {same}")
            self._rows[moment] = row
        if not self._rows:
            raise DataError(f"{root / FILE} is empty", expected="at least one row below the header")

    def moments(self) -> list[Moment]:
        """Every row."""
        return sorted(self._rows)

    def observation(self, moment: Moment) -> Observation:
        """One row."""
        row = self._rows.get(moment)
        if row is None:
            raise DataError(f"{self.name} has no row with episode {moment.group!r} and index {moment.index}")
        try:
            images = {name: read_image(path) for name, path in row.files.items()}
            whole = images.pop("image", None)
            return Observation(
                row.joints,
                row.gripper,
                row.instruction,
                views=None if whole is not None else images,
                image=whole,
                source=row.where,
            )
        except ObservationError as error:
            raise DataError(f"{row.where}: the policy can't take it", got=str(error)) from error

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        images = [path for row in self._rows.values() for path in row.files.values()]
        return fingerprint_files(self.root, {self.root / FILE, *images}, self._instruction or "")

    def _read_table(self) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
        """Columns, and rows with their line numbers."""
        try:
            # Spreadsheets put a byte order mark in front
            with open(self.root / FILE, encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                return list(reader.fieldnames or ()), [(number, row) for number, row in enumerate(reader, start=2)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{self.root / FILE} is no table in UTF-8", got=str(error), fix="save it as UTF-8"
            ) from error

    def _row(self, where: str, cells: dict[Any, Any]) -> _Row:
        if None in cells:
            raise DataError(f"{where} has more cells than the header", got=", ".join(map(str, cells[None])))
        files = {name: self.root / cells[name] for name in self._cameras if cells[name]}
        if not files:
            raise DataError(f"{where} names no image", expected=" or ".join(self._cameras))
        if "image" in files and len(files) > 1:
            raise DataError(f"{where} names an image and cameras", expected="one of both", got=", ".join(files))
        for path in files.values():
            if self.root not in path.resolve().parents:
                raise DataError(f"{where}: an image lies outside the folder", got=str(path))
            if not path.is_file():
                raise DataError(f"{where}: there is no image {path.name}")
        try:
            joints, gripper = [float(cells[name]) for name in _JOINTS], float(cells["gripper"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the state is not made of numbers", got=str(error)) from error
        instruction = self._instruction or cells.get("instruction") or ""
        if not instruction.strip():
            raise DataError(f"{where} has no instruction", fix="an instruction column, or --instruction TEXT")
        return _Row(where, files, joints, gripper, instruction)
