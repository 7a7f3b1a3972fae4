"""Requests on disk, one folder each, as they were answered: to calibrate on, and to look at later.

DIR/request-000000/observation.json, the images beside it, and request.json with the seed and the sampler's settings.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from motedge.files import PathLike, write_json
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation

SCHEMA = "motedge.request/v1"
FILE = "request.json"
_SETTINGS = ("steps", "shift", "guidance", "guidance_interval")


def record_request(folder: PathLike, observation: Observation, chunk: ActionChunk) -> Path:
    """Adds one request behind those that are there; returns its folder.

    Raises:
        MissingPackageError: Pillow is not installed.
        HostError: the disk is full or not writable.
    """
    root = Path(folder)
    taken = [int(path.name.rpartition("-")[2]) for path in root.glob("request-*") if path.name[-6:].isdigit()]
    place = root / f"request-{max(taken, default=-1) + 1:06d}"
    # The observation last: without it, the folder is no request yet
    document = {
        "schema": SCHEMA,
        "seed": chunk.seed,
        "settings": {name: chunk.details[name] for name in _SETTINGS},
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
    }
    place.mkdir(parents=True)
    write_json(place / FILE, document)
    write_observation(place, observation)
    return place
