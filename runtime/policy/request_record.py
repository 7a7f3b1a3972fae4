"""Requests on disk, one folder each, as they were answered: to calibrate on, and to look at later.

DIR/request-000000/observation.json, the images beside it, and request.json with the seed, the sampler's settings, and
the prompt where the reasoner wrote it.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Optional

from motedge.errors import HostError, ObservationError, UsageError
from motedge.files import PARTIAL_SUFFIX, PathLike, disk_error, nearest_existing, write_json
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation

SCHEMA = "motedge.request/v1"
FILE = "request.json"
_SETTINGS = ("steps", "shift", "guidance", "guidance_interval")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def check_record_folder(folder: PathLike) -> None:
    """Before the first request, so that none is answered in vain. Makes nothing.

    Raises:
        UsageError: there is a file of that name.
        HostError: the folder is not writable.
    """
    there = nearest_existing(Path(folder))
    if not there.is_dir():
        raise UsageError(f"requests can't be recorded in {folder}", expected="a folder", got=f"{there} is a file")
    if not (os.access(there, os.W_OK) and os.access(there, os.X_OK)):
        raise HostError(f"can't write {there}", fix="choose a folder you may write to")


def record_request(folder: PathLike, observation: Observation, chunk: ActionChunk) -> Path:
    """Adds one request behind those that are there; returns its folder. Several processes may add at once.

    Raises:
        MissingPackageError: Pillow is not installed.
        HostError: the disk is full or not writable; nothing is left behind.
    """
    root = Path(folder)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "seed": chunk.seed,
        "settings": {name: chunk.details[name] for name in _SETTINGS},
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
    }
    if chunk.details.get("step_cache") is not None:
        document["settings"]["step_cache"] = chunk.details["step_cache"]
    if chunk.reasoning is not None:
        # Nothing else tells it: the instruction is the observation's, the reasoner's reply was of that moment
        document["prompt"] = chunk.reasoning.prompt
    partial = root / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        partial.mkdir(parents=True)
        write_json(partial / FILE, document)
        write_observation(partial, observation)
        return _add(root, partial)
    except OSError as error:
        raise disk_error(error, root) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recorded_prompt(folder: PathLike) -> Optional[str]:
    """What the generator was given in the place of the prompt that the instruction makes; None: that one.

    Raises:
        ObservationError: request.json is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ObservationError(f"{path} is not JSON", got=str(error)) from error
    prompt = raw.get("prompt") if isinstance(raw, dict) else raw
    if prompt is not None and not isinstance(prompt, str):
        raise ObservationError(
            f"{path} is not a recorded request", expected="a prompt that is text, or none", got=prompt
        )
    return prompt


def _add(root: Path, partial: Path) -> Path:
    """Gives a finished folder the next free name. Another process may take that name first: then the one after."""
    while True:
        taken = [int(path.name.rpartition("-")[2]) for path in root.glob("request-*") if path.name[-6:].isdigit()]
        place = root / f"request-{max(taken, default=-1) + 1:06d}"
        try:
            partial.rename(place)
            return place
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
