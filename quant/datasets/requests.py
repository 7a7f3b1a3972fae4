"""Requests that a policy answered, as `motedge run --record` and other callers wrote them down."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from motedge.errors import DataError
from motedge.quant.datasets.dataset import Moment, fingerprint_files
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import FILE, read_observation


class RecordedRequests:
    """Observation folders below one folder, in order of their names."""

    kind = "requests"
    notes: tuple[str, ...] = ()

    def __init__(self, root: Path, instruction: Optional[str] = None) -> None:
        """Looks for the folders; reads none yet."""
        self.root, self.name, self._instruction = root, root.name, instruction
        self._folders = sorted(path.parent for path in root.glob(f"*/{FILE}"))
        if not self._folders:
            raise DataError(f"{root} holds no recorded request", expected=f"folders with {FILE}", fix="check the path")

    def moments(self) -> list[Moment]:
        """One a request: they are in order of time."""
        return [Moment("", index) for index in range(len(self._folders))]

    def observation(self, moment: Moment) -> Observation:
        """One request's observation."""
        return read_observation(self._folders[moment.index], instruction=self._instruction)

    def fingerprint(self) -> str:
        """See motedge.quant.datasets.dataset.Dataset."""
        files = [path for folder in self._folders for path in folder.iterdir() if path.is_file()]
        return fingerprint_files(self.root, files, self._instruction or "")
