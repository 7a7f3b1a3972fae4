"""build.json as frozen dataclasses: which engines a folder `engines/<target>/` holds, made by what, from what."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, closest

SCHEMA = "motedge.engine/v1"
BUILD_FILE = "build.json"
ENGINES_FOLDER = "engines"


@dataclass(frozen=True)
class EngineFile:
    """One engine. Every field is JSON."""

    graph: str
    # Id of the variant that it was built from
    variant: str
    # File name, beside build.json
    file: str
    bytes: int
    sha256: str
    # "tensorrt", "tensorrt-rtx" or "onnxruntime"
    builder: str
    # Of the library that built it: "10.3.0.30"
    builder_version: str
    # Compute capabilities that it runs on, "8.9"; empty for a CPU
    compute_capabilities: tuple[str, ...]
    # "x86_64-linux" or "aarch64-linux": the machine that built it. TensorRT's plans run there alone
    platform: str
    # UTC, ISO 8601
    created: str
    seconds: float
    # Highest resident memory of the build's own process, file pages that it had mapped included
    peak_memory_bytes: int
    # The same without pages of files, which the system takes back when it needs them; None where it is not told
    peak_anonymous_bytes: Optional[int]
    # Activations at the largest shapes of the profile; None where no GPU was there to ask
    device_memory_bytes: Optional[int]
    # What the builder was told
    settings: Mapping[str, Any]
    # sha256 over graph, weights, contract, settings and builder: equal means up to date
    source: str
    # Number of layers by type and, where an engine could be asked, precision and tactic of each; says which
    layers: Mapping[str, Any] = field(default_factory=dict)
    # Each layer that computes in a higher precision than asked: layer, kind, asked, got, where
    raised_precision: tuple[Mapping[str, Any], ...] = ()
    # Holds host code (a lean runtime): loaded only when trusted
    version_compatible: bool = False
    refittable: bool = False
    # Must be refitted with its weights before it runs
    weights_stripped: bool = False
    # Further files of the engine, beside it: name -> {bytes, sha256}
    data_files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # What was not as asked, in words
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Of the engine with its data files."""
        return self.bytes + sum(int(entry["bytes"]) for entry in self.data_files.values())


@dataclass(frozen=True)
class EngineFiles:
    """The engines of one target in one bundle."""

    folder: Path
    # Id of the target
    target: str
    engines: tuple[EngineFile, ...]

    @classmethod
    def open(cls, bundle: Bundle, target: str) -> EngineFiles:
        """Reads `engines/<target>/build.json`.

        Raises:
            BundleError: nothing was built for this target, or the file is damaged or of a newer schema.
        """
        folder = bundle.path(f"{ENGINES_FOLDER}/{target}")
        if not (folder / BUILD_FILE).is_file():
            built = sorted(p.parent.name for p in bundle.root.glob(f"{ENGINES_FOLDER}/*/{BUILD_FILE}"))
            raise BundleError(
                f"the bundle has no engines for {target!r}",
                got=f"engines for {', '.join(built)}" if built else "no engines at all",
                fix=f"motedge build {bundle.root} --target {target}",
            )
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> EngineFiles:
        """Reads the build.json of a folder; BundleError as in `open`."""
        path = folder / BUILD_FILE
        fix = "build again: motedge build BUNDLE --target TARGET"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            schema = raw.get("schema")
            if schema == SCHEMA:
                return cls(folder, raw["target"], tuple(_engine(entry) for entry in raw["engines"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is damaged", got=f"{type(error).__name__}: {error}", fix=fix) from error
        raise BundleError(f"{path} has another schema", expected=SCHEMA, got=schema, fix=fix)

    def find(self, graph: str, variant: Optional[str] = None, capability: Optional[str] = None) -> EngineFile:
        """The engine of a graph.

        Args:
            graph: "gen_step" and so on.
            variant: None: the only one there is.
            capability: of the GPU, "8.9"; None: whatever was built. The gate checks it in any case.

        Raises:
            BundleError: none fits, or several do.
        """
        of_graph = [e for e in self.engines if e.graph == graph]
        fitting = [e for e in of_graph if variant in (None, e.variant)]
        if len(fitting) > 1 and capability is not None:
            fitting = [e for e in fitting if not e.compute_capabilities or capability in e.compute_capabilities]
        if len(fitting) == 1:
            return fitting[0]
        what = f"graph {graph!r}" + (f" in variant {variant!r}" if variant else "")
        got = ", ".join(f"{e.variant} for {' '.join(e.compute_capabilities) or 'CPU'}" for e in fitting or of_graph)
        if fitting:
            raise BundleError(f"{self.target} has several engines of {what}", got=got, fix="name the variant")
        fix = closest(graph, {e.graph for e in self.engines}) if self.engines and not of_graph else None
        raise BundleError(f"{self.target} has no engine of {what}", got=got or "none", fix=fix or "motedge build")

    def with_engine(self, engine: EngineFile) -> EngineFiles:
        """The record with an engine in the place of an older one of the same file name."""
        others = [known for known in self.engines if known.file != engine.file]
        return dataclasses.replace(self, engines=tuple(sorted([*others, engine], key=lambda e: e.file)))

    def path(self, engine: EngineFile) -> Path:
        """The engine's file; BundleError if its name leads out of the folder."""
        return self.inside(engine.file)

    def inside(self, name: str) -> Path:
        """A file of the folder by its name; BundleError if the name leads out of it."""
        if Path(name).name != name or name in ("", ".", ".."):
            raise BundleError(
                f"{BUILD_FILE} names a file outside its folder",
                got=name,
                why="such a bundle could make this program read any file of the machine",
                fix="don't use it; build again",
            )
        return self.folder / name

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        engines = [dataclasses.asdict(engine) for engine in self.engines]
        return {"schema": SCHEMA, "target": self.target, "engines": engines}


def _engine(raw: Mapping[str, Any]) -> EngineFile:
    known = {f.name for f in dataclasses.fields(EngineFile)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    values = dict(raw)
    for name in ("compute_capabilities", "raised_precision", "notes"):
        values[name] = tuple(values.get(name, ()))
    engine = EngineFile(**values)
    if not isinstance(engine.bytes, int) or not isinstance(engine.file, str):
        raise TypeError("a field of a wrong kind")
    return engine
