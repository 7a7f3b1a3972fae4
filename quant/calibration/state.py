"""The state of a calibration that is under way, and what earlier ones know."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motedge.errors import BundleError
from motedge.files import atomic_path
from motedge.quant.calibration.result import CalibrationData, SiteStatistics
from motedge.quant.calibration.store import FACTS, load_calibration

STATE = ".calibration.safetensors"
_log = logging.getLogger(__name__)


@dataclass
class CalibrationState:
    """What has been found so far. `save` after each observation and each layer."""

    path: Path
    # What the numbers belong to
    key: str
    # Graph -> site -> fp32 [in]
    ranges: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    awq: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    # Graph -> requests whose forwards are in the ranges, in order from the first
    done: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, origin: str, data: CalibrationData) -> CalibrationState:
        """The state of an interrupted calibration of the same bundle on the same data, or a new one."""
        text = json.dumps([origin, dataclasses.asdict(data)], sort_keys=True)
        state = cls(folder / STATE, hashlib.sha256(text.encode()).hexdigest())
        if state.path.is_file():
            state._read()
        return state

    def save(self) -> None:
        """Writes the state beside the last one, then over it."""
        tensors = {f"ranges/{g}/{n}": t for g, sites in self.ranges.items() for n, t in sites.items()}
        tensors.update({f"awq/{g}/{n}": t for g, sites in self.awq.items() for n, t in sites.items()})
        with atomic_path(self.path) as partial:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()},
                partial,
                metadata={"key": self.key, "done": json.dumps(self.done)},
            )

    def remove(self) -> None:
        """The calibration is complete."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != self.key:
                    _log.warning("an interrupted calibration on other data was found: starting over")
                    return
                self.done = json.loads(metadata["done"])
                for name in file.keys():  # noqa: SIM118, not a mapping
                    kind, graph, site = name.split("/")
                    found = self.ranges if kind == "ranges" else self.awq
                    found.setdefault(graph, {})[site] = file.get_tensor(name)
        except (SafetensorError, ValueError, KeyError) as error:
            _log.warning("the state of an interrupted calibration is damaged (%s): starting over", error)
            self.ranges, self.awq, self.done = {}, {}, {}
            return
        _log.info("going on with an interrupted calibration: %s", self.done)


def find_known(folders: Sequence[Path], origin: str, data: CalibrationData) -> dict[str, dict[str, SiteStatistics]]:
    """What earlier calibrations on the same observations know, merged.

    Raises:
        BundleError: an earlier calibration is damaged or of another checkpoint.
    """
    known: dict[str, dict[str, SiteStatistics]] = {}
    for folder in folders:
        if not (folder / FACTS).is_file():
            continue
        found = load_calibration(folder)
        if found.origin != origin:
            raise BundleError(f"the calibration in {folder} is of another checkpoint", fix="calibrate this bundle")
        if _same_observations(found.data, data):
            _merge(known, found.graphs)
        else:
            _log.warning("the calibration in %s is of other observations or settings: not used", folder)
    return known


def _same_observations(a: CalibrationData, b: CalibrationData) -> bool:
    return (a.fingerprint, a.calibration, dict(a.settings)) == (b.fingerprint, b.calibration, dict(b.settings))


def _merge(known: dict[str, dict[str, SiteStatistics]], more: Mapping[str, Mapping[str, SiteStatistics]]) -> None:
    for graph, sites in more.items():
        for name, statistics in sites.items():
            present = known.setdefault(graph, {}).get(name)
            if present is None or present.awq_scale is None:
                known[graph][name] = statistics
