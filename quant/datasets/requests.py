"""Requests that a policy answered, as `motedge run --record` and other callers wrote them down.

DIR/request-000000/, DIR/request-000001/, ... are one session; DIR/SESSION/request-000000/, ... several. A single
observation folder is taken, too.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import Optional

from motedge.errors import DataError
from motedge.files import PARTIAL_SUFFIX, sha256_file
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import FILE, read_observation
from motedge.runtime.policy.request_record import FILE as REQUEST
from motedge.runtime.policy.request_record import recorded_prompt

_log = logging.getLogger(__name__)


def request_folders(root: Path) -> list[Path]:
    """Observation folders one or two levels below `root`; without any, `root` itself if it is one."""
    found = [path.parent for pattern in (f"*/{FILE}", f"*/*/{FILE}") for path in root.glob(pattern)]
    whole = sorted(path for path in found if not path.name.endswith(PARTIAL_SUFFIX))
    return whole or ([root] if (root / FILE).is_file() else [])


class RecordedRequests:
    """Observation folders in order of their names, by session."""

    kind = "requests"

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """Looks for the folders; reads none yet."""
        self.root, self.name, self._instruction = root, root.resolve().name, instruction
        self._folders: dict[Moment, Path] = {}
        sessions: dict[str, int] = {}
        for folder in request_folders(root):
            session = "" if folder.parent == root or folder == root else folder.parent.name
            self._folders[Moment(session, sessions.get(session, 0))] = folder
            sessions[session] = sessions.get(session, 0) + 1
        if not self._folders:
            raise DataError(f"{root} holds no recorded request", expected=f"folders with {FILE}", fix="check the path")

    @property
    def notes(self) -> tuple[str, ...]:
        """Requests that are not used."""
        repeats = len(self._folders) - len(self._distinct)
        if not repeats:
            return ()
        return (f"{repeats} of {len(self._folders)} requests repeat an earlier observation and are left out",)

    def moments(self) -> list[Moment]:
        """One a request, in order of time; an observation that was asked about again counts once."""
        return list(self._distinct)

    def observation(self, moment: Moment) -> Observation:
        """One request's observation; a `PromptedObservation` where the reasoner wrote the prompt.

        Another instruction than the recorded one goes without: the prompt was made of the latter.
        """
        if moment not in self._folders:
            raise DataError(f"{self.name} has no request {moment.index} in session {moment.group!r}")
        folder = self._folders[moment]
        seen = read_observation(folder, instruction=self._instruction)
        prompt = recorded_prompt(folder) if self._instruction is None else None
        return seen if prompt is None else PromptedObservation.of(seen, prompt)

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        files = [path for folder in self._folders.values() for path in folder.iterdir() if path.is_file()]
        return fingerprint_files(self.root, files, self._instruction or "")

    @functools.cached_property
    def _distinct(self) -> tuple[Moment, ...]:
        """`motedge run --repeat` records equal requests: measured on one, calibrated on its double, a quantized
        model would look better than it is.
        """
        first: dict[str, Moment] = {}
        for moment, folder in self._folders.items():
            first.setdefault(_content(folder), moment)
        if len(first) < len(self._folders):
            repeats = len(self._folders) - len(first)
            _log.warning("%s: %d of %d requests repeat an observation", self.name, repeats, len(self._folders))
        return tuple(first.values())


def _content(folder: Path) -> str:
    """Hex sha256 of what was observed: everything but what was made of it, and the time of day."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != REQUEST:
            digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
