"""The samples of a bundle: recorded inputs with the outputs that they should give."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.comparison import DEFAULT_GATES, QUANTIZED_GATE, Gate
from motedge.runtime.engine import Array

# The sample of a whole tick; the others are called as their graph
TICK = "tick"


@dataclass(frozen=True)
class Sample:
    """One entry of manifest.samples; `arrays` reads its file."""

    name: str
    # Path in the bundle; None where there is no sample
    file: Optional[str]
    # Why there is none
    none: Optional[str]
    # What the expected outputs come from
    reference: str
    # "<dtype>" or "<dtype>-<recipe>" -> gate, or one gate for all under "gate"; see `gate`
    gates: Mapping[str, Gate]

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> Sample:
        """Reads the manifest's entry.

        Raises:
            BundleError: an entry with neither a file nor a reason, or a damaged gate.
        """
        entry = bundle.manifest.samples.get(name)
        if entry is None:
            return cls(name, None, "the bundle was exported without it", "none", {})
        if not isinstance(entry, Mapping) or not ("file" in entry or "none" in entry):
            raise BundleError(f"manifest.json: sample {name!r} has neither a file nor a reason", got=entry)
        if "none" in entry:
            return cls(name, None, str(entry["none"]), "none", {})
        return cls(name, str(entry["file"]), None, str(entry.get("reference", "not recorded")), _gates(entry))

    def gate(self, dtype: str, recipe: Optional[str] = None) -> Gate:
        """What a variant of this dtype must reach: as recorded, otherwise the default.

        A quantized variant is held against what it was measured to reach when it was made, see `recipe_gate`.
        """
        if recipe is not None:
            return self.gates.get(f"{dtype}-{recipe}") or QUANTIZED_GATE
        return self.gates.get(dtype) or self.gates.get("") or DEFAULT_GATES[dtype]

    def arrays(self, bundle: Bundle) -> dict[str, Array]:
        """Checks the file against the manifest and reads it.

        Raises:
            BundleError: missing, changed, or not an .npz of plain arrays.
        """
        if self.file is None:
            raise BundleError(f"there is no sample of {self.name!r}", why=self.none)
        bundle.check_files([self.file])
        try:
            # Pickled objects are refused: a sample must not be able to run code
            with np.load(bundle.path(self.file), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise BundleError(f"{self.file} can't be read", got=str(error), fix="export again") from error


def _gates(entry: Mapping[str, Any]) -> dict[str, Gate]:
    """`"gate"`: either one gate, kept under "", or one for each dtype, alone or with a recipe."""
    raw = entry.get("gate")
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise BundleError("a sample's gate is not a JSON object", got=raw)
    if raw and {key.partition("-")[0] for key in raw} <= set(DEFAULT_GATES):
        return {dtype: Gate.from_dict(value) for dtype, value in raw.items()}
    return {"": Gate.from_dict(raw)}
