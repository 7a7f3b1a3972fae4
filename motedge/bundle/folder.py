"""A bundle on disk: opening it, checking its files, reading its parts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from motedge.bundle.contract import Contract
from motedge.bundle.external_data import external_files
from motedge.bundle.manifest import GraphEntry, Manifest, Variant
from motedge.errors import BundleError, closest
from motedge.files import PathLike, sha256_file

MANIFEST = "manifest.json"


class Bundle:
    """A bundle folder and its parsed manifest. Immutable: stages write files and then a new manifest."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        # Once: `current` may be switched to another bundle while a program has this one open
        self._inside = root.resolve()

    @classmethod
    def open(cls, root: PathLike) -> Bundle:
        """Opens a bundle and parses its manifest; checks no file yet (see `check_files`).

        Raises:
            BundleError: no folder, no manifest, an export that was interrupted, a newer schema.
        """
        folder = Path(root)
        path = folder / MANIFEST
        if folder.is_file():
            within = (folder.parent / MANIFEST).is_file()
            raise BundleError(
                f"there is no bundle at {folder}",
                expected=f"a folder with {MANIFEST}",
                got="a file",
                fix=f"give its folder: {folder.parent}" if within else "motedge export CHECKPOINT --out BUNDLE",
            )
        if not folder.is_dir():
            raise BundleError(f"there is no bundle at {folder}", fix="motedge export CHECKPOINT --out BUNDLE")
        if not path.is_file():
            raise BundleError(
                f"{folder} has no {MANIFEST}",
                why="it is not a bundle, or its export was interrupted before the end",
                fix="run the same motedge export again: it goes on where it stopped",
            )
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            fix = "copy the bundle again; or delete that file and export again"
            raise BundleError(f"{path} is not JSON", got=str(error), fix=fix) from error
        if not isinstance(raw, dict):
            raise BundleError(f"{path} is not a manifest", expected="a JSON object", got=type(raw).__name__)
        return cls(folder, Manifest.from_dict(raw))

    def path(self, relative: str) -> Path:
        """The absolute path of a file of the bundle; BundleError if the name leads outside the folder."""
        target = (self._inside / relative).resolve()
        if target != self._inside and self._inside not in target.parents:
            raise BundleError(
                "a path in the bundle points outside its folder",
                expected=f"a file below {self.root}",
                got=relative,
                why="such a bundle could make this program read any file of the machine",
                fix="don't use it; export again from the checkpoint",
            )
        return target

    def graph(self, name: str) -> GraphEntry:
        """The entry of a graph; BundleError names the graphs that the bundle has."""
        if name not in self.manifest.graphs:
            raise BundleError(f"the bundle has no graph {name!r}", fix=closest(name, self.manifest.graphs))
        return self.manifest.graphs[name]

    def variant(self, graph: str, variant: str) -> Variant:
        """One variant of a graph, by its id."""
        variants = self.graph(graph).variants
        if variant not in variants:
            raise BundleError(f"graph {graph!r} has no variant {variant!r}", fix=closest(variant, variants))
        return variants[variant]

    def contract(self, graph: str) -> Contract:
        """The contract of a graph."""
        return Contract.from_dict(self.read_json(self.graph(graph).contract))

    def read_json(self, relative: str) -> dict[str, object]:
        """A JSON file of the bundle."""
        try:
            value = json.loads(self.path(relative).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise self._missing(relative) from error
        except ValueError as error:
            raise BundleError(f"{relative} is not JSON", got=str(error), fix="export again") from error
        if not isinstance(value, dict):
            raise BundleError(f"{relative} does not hold a JSON object")
        return value

    def check_files(self, names: Iterable[str] | None = None, *, content: bool = True) -> None:
        """Checks that files exist with the recorded size and, with `content`, the recorded sha256.

        Raises:
            BundleError: a file is missing, unknown to the manifest, or differs from what was exported.
        """
        for name in self.manifest.files if names is None else names:
            entry = self.manifest.files.get(name)
            path = self.path(name)
            if entry is None:
                raise BundleError(f"{name} is not in the manifest", fix="export again")
            if not path.is_file():
                raise self._missing(name)
            size = path.stat().st_size
            if size != entry.bytes:
                raise self._changed(name, f"{entry.bytes} bytes", f"{size} bytes")
            if content and (digest := sha256_file(path)) != entry.sha256:
                raise self._changed(name, f"sha256 {entry.sha256}", f"sha256 {digest}")

    def check_variant(self, graph: str, variant: str, *, content: bool = True) -> Path:
        """Checks a variant's ONNX file, its contract and its external data; returns the ONNX file's path.

        Raises:
            BundleError: see `check_files`; or the ONNX file refers to data outside the bundle or the manifest.
        """
        entry = self.variant(graph, variant)
        model = self.path(entry.file)
        if not model.is_file():
            raise self._missing(entry.file)
        allowed = {self.path(name) for name in entry.weights}
        for location in external_files(model):
            relative = (Path(entry.file).parent / location).as_posix()
            if self.path(relative) not in allowed:
                raise BundleError(
                    f"{entry.file} refers to a data file that its variant does not list",
                    expected=", ".join(entry.weights) or "no external data",
                    got=location,
                    fix="don't use it; export again from the checkpoint",
                )
        self.check_files([entry.file, self.graph(graph).contract, *entry.weights], content=content)
        return model

    def _missing(self, name: str) -> BundleError:
        return BundleError(f"{name} is missing from the bundle {self.root}", fix="copy it again, or export again")

    def _changed(self, name: str, expected: str, got: str) -> BundleError:
        return BundleError(
            f"{name} differs from what was exported",
            expected=expected,
            got=got,
            why="it was changed or damaged since; its numbers can't be trusted",
            fix="copy the bundle again; or delete that file and export again",
        )
