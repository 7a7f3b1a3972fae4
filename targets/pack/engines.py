"""Engines that a bundle has for the target and that go with it: those of the chosen variants."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from motedge.bundle import Bundle
from motedge.errors import UsageError
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles
from motedge.runtime.engine_files.record import ENGINES_FOLDER
from motedge.targets.builders.selection import Choice
from motedge.targets.catalog import Target


@dataclass(frozen=True)
class PackedEngines:
    """What engines/<target>/ of the archive holds."""

    files: EngineFiles

    @property
    def engines(self) -> tuple[EngineFile, ...]:
        """Their entries of build.json."""
        return self.files.engines

    @property
    def record(self) -> tuple[str, bytes]:
        """Path in the archive and content of the build.json that names them alone."""
        text = json.dumps(self.files.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return f"{self.folder}/{BUILD_FILE}", text.encode("utf-8")

    @property
    def folder(self) -> str:
        """Path in the archive and in the bundle."""
        return f"{ENGINES_FOLDER}/{self.files.target}"


def find_engines(bundle: Bundle, target: Target, choices: Sequence[Choice]) -> PackedEngines:
    """Engines of the chosen variants; none where nothing was built for the target.

    Raises:
        BundleError: build.json is damaged.
    """
    folder = bundle.path(f"{ENGINES_FOLDER}/{target.id}")
    if not (folder / BUILD_FILE).is_file():
        return PackedEngines(EngineFiles(folder, target.id, ()))
    files = EngineFiles.read(folder)
    chosen = {(choice.graph, choice.variant) for choice in choices}
    return PackedEngines(
        dataclasses.replace(files, engines=tuple(e for e in files.engines if (e.graph, e.variant) in chosen))
    )


def require_complete(engines: PackedEngines, choices: Sequence[Choice]) -> None:
    """UsageError unless every graph has an engine that needs nothing of the graph any more."""
    whole = {engine.graph for engine in engines.engines if not engine.weights_stripped}
    lacking = [choice.graph for choice in choices if choice.graph not in whole]
    if lacking:
        raise UsageError(
            "--engines-only needs a whole engine of every graph",
            got=f"none, or one without weights, of {', '.join(lacking)}",
            fix=f"motedge build BUNDLE --target {engines.files.target}, or leave --engines-only out",
        )
