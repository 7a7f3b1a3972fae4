"""Whether an archive is for this machine, and how much room its engines will take there."""

from __future__ import annotations

import logging

from motedge.errors import HostError
from motedge.targets.detect import AMBIGUOUS, UNKNOWN, Detection
from motedge.targets.install.listing import PackListing

_log = logging.getLogger(__name__)
# As targets.builders.checks: engines hold the weights, kernels and little else
_ENGINE_OVERHEAD, _ENGINE_BASE_BYTES = 1.02, 20_000_000
_FIX = "pack for this device: motedge pack BUNDLE --target {}; or --any-device, where you know better"


def require_fit(listing: PackListing, here: Detection) -> None:
    """HostError for another device's archive, or one for another release of this device's system software.

    What can't be told is a warning: a device that the catalogue does not know may well be the right one.
    """
    if listing.builder == "onnxruntime":
        # Graphs for a CPU run on any
        return
    possible = [here.target] if here.target is not None else [candidate.target for candidate in here.candidates]
    if here.certainty == UNKNOWN or listing.target_file is not None:
        _log.warning("the bundle is for %s; which device this is can't be told (%s)", listing.target, here.reason)
        return
    if listing.target not in possible:
        raise HostError(
            "the bundle was packed for another device",
            expected=listing.target,
            got=f"{' or '.join(possible)}: {here.reason}",
            why="its graphs and engines are those that the other device's GPU and libraries take",
            fix=_FIX.format(possible[0] if possible else "ID"),
        )
    if here.certainty == AMBIGUOUS:
        _log.warning("the bundle is for %s; this is one of %s", listing.target, ", ".join(possible))
    names = [release.release for release in listing.releases]
    if here.software is not None and names and here.software.release not in names:
        raise HostError(
            "the bundle was packed for other releases of this device's system software",
            expected=", ".join(names),
            got=here.software.release,
            why="its TensorRT takes other graphs",
            fix=_FIX.format(f'{listing.target} --release "{here.software.release}"'),
        )


def engine_room(listing: PackListing) -> int:
    """Bytes that the engines of a bundle will take, about; 0 where they come along."""
    if any(name.startswith("engines/") and name.endswith("/build.json") for name in listing.files):
        return 0
    weights = sum(entry.bytes for name, entry in listing.files.items() if name.startswith("graphs/weights/"))
    return int(weights * _ENGINE_OVERHEAD) + _ENGINE_BASE_BYTES * len(listing.variants)
