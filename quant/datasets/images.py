"""A folder of images with their states in states.csv.

Columns: image (the composed picture), or wrist, left and right (cameras; an empty cell is a missing one); joint_1 to
joint_7 in rad; gripper, fraction closed; optional instruction, episode, index.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Optional

from motedge.errors import DataError, MotedgeError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_image
from motedge.runtime.policy.views import VIEW_NAMES

FILE = "states.csv"
_JOINTS = tuple(f"joint_{number}" for number in range(1, 8))


class ImageFolder:
    """Rows of states.csv with their image files."""

    kind = "images"
    notes: tuple[str, ...] = ()

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """Reads the table; DataError for a missing column or an image that is not there."""
        self.root, self.name, self._instruction = root, root.name, instruction
        with open(root / FILE, encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            rows = list(reader)
        self._cameras = [name for name in ("image", *VIEW_NAMES) if name in columns]
        missing = [name for name in (*_JOINTS, "gripper") if name not in columns]
        if missing or not self._cameras:
            lacking = missing or ["image"]
            raise DataError(
                f"{root / FILE} has no column {lacking[0]}",
                expected="image, or wrist, left, right; joint_1 to joint_7; gripper",
                got=", ".join(columns) or "no header",
            )
        self._rows: dict[Moment, dict[str, str]] = {}
        for number, row in enumerate(rows, start=2):
            index = row.get("index") or str(number - 2)
            if not index.isdigit():
                raise DataError(f"{root / FILE}, line {number}: index is not a whole number", got=repr(index))
            moment = Moment(row.get("episode") or "", int(index))
            if moment in self._rows:
                raise DataError(
                    f"{root / FILE}, line {number}: episode and index are those of line {self._rows[moment]['line']}"
                )
            self._rows[moment] = {**row, "line": str(number)}
        if not self._rows:
            raise DataError(f"{root / FILE} is empty", expected="at least one row below the header")
        for row in self._rows.values():
            for path in self._files(row).values():
                if not path.is_file():
                    raise DataError(f"{root / FILE}, line {row['line']}: there is no image {path.name}")

    def moments(self) -> list[Moment]:
        """Every row."""
        return sorted(self._rows)

    def observation(self, moment: Moment) -> Observation:
        """One row."""
        row = self._rows[moment]
        where = f"{self.root / FILE}, line {row['line']}"
        try:
            joints, gripper = [float(row[name]) for name in _JOINTS], float(row["gripper"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the state is not made of numbers", got=str(error)) from error
        images = {name: read_image(path) for name, path in self._files(row).items()}
        whole = images.pop("image", None)
        instruction = self._instruction or row.get("instruction") or ""
        if not instruction.strip():
            raise DataError(f"{where} has no instruction", fix="an instruction column, or --instruction TEXT")
        try:
            return Observation(joints, gripper, instruction, views=None if whole is not None else images, image=whole)
        except MotedgeError as error:
            raise DataError(f"{where}: the policy can't take it", got=str(error)) from error

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        images = [path for row in self._rows.values() for path in self._files(row).values()]
        return fingerprint_files(self.root, {self.root / FILE, *images}, self._instruction or "")

    def _files(self, row: dict[str, str]) -> dict[str, Path]:
        found = {name: self.root / row[name] for name in self._cameras if row.get(name)}
        for path in found.values():
            if self.root.resolve() not in path.resolve().parents:
                raise DataError(f"line {row['line']}: an image lies outside the folder", got=str(path))
        return found
