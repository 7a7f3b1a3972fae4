"""What every builder offers, what it is given for one graph, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

from motedge.bundle import Contract
from motedge.errors import MotedgeError
from motedge.runtime.backends.tensorrt.versions import TensorRtVersion
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import Target

# Phase of the build in the builder's words, and the share of it that is done, 0 to 1
Progress = Callable[[str, float], None]


class BuildError(MotedgeError):
    """An engine library refused a graph: names the builder, the graph, and the layer or tensor where it is known."""


@dataclass(frozen=True)
class BuildRequest:
    """One graph in one variant, to become one engine."""

    graph: str
    variant: str
    model: Path
    contract: Contract
    # The graph's own floating type: "fp32", "fp16" or "bf16"
    dtype: str
    # Projection -> (format of its activations, format of its weight) that the recipe asks for, such as ("fp8", "fp8")
    asked: Mapping[str, tuple[str, str]]
    # Compute capabilities to build for, "8.9"; empty for a CPU, or where the builder takes the GPU it finds
    capabilities: tuple[str, ...]
    settings: BuildSettings
    # Where the engine goes; the builder writes it whole
    out: Path
    # What tactics took in earlier builds on this device by this version; None: not kept
    timing_cache: Optional[Path] = None
    # Target for which it is built
    target: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, for the process that builds."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["contract"], values["settings"] = self.contract.to_dict(), self.settings.to_dict()
        for name in ("model", "out", "timing_cache"):
            values[name] = None if values[name] is None else str(values[name])
        return values

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> BuildRequest:
        """Parses the JSON form."""
        values = dict(raw)
        values["contract"] = Contract.from_dict(raw["contract"])
        values["settings"] = BuildSettings(**raw["settings"])
        values["capabilities"] = tuple(raw["capabilities"])
        values["asked"] = {site: (types[0], types[1]) for site, types in raw["asked"].items()}
        for name in ("model", "out", "timing_cache"):
            values[name] = None if raw[name] is None else Path(raw[name])
        return cls(**values)


@dataclass(frozen=True)
class BuiltEngine:
    """What a builder knows of an engine that it wrote. JSON."""

    device_memory_bytes: Optional[int]
    layers: Mapping[str, Any]
    raised_precision: tuple[Mapping[str, Any], ...] = ()
    version_compatible: bool = False
    refittable: bool = False
    weights_stripped: bool = False
    # Names of further files, beside the engine
    data_files: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> BuiltEngine:
        """Parses the JSON form."""
        values = dict(raw)
        for name in ("raised_precision", "data_files", "notes"):
            values[name] = tuple(values[name])
        return cls(**values)


class Builder(Protocol):
    """One engine library."""

    # "tensorrt", "tensorrt-rtx" or "onnxruntime"
    name: str
    # File suffix of its engines
    suffix: str

    def version(self) -> str:
        """Of the library, "10.3.0.30".

        Raises:
            HostError: not installed, or of a version that is not supported.
        """
        ...

    def dialects(self) -> tuple[str, ...]:
        """Dialects of graphs that it takes, the preferred one first; HostError as in `version`."""
        ...

    def row(self) -> Optional[TensorRtVersion]:
        """The version's row of differences; None for what is no TensorRT. HostError as in `version`."""
        ...

    def check(self, target: Target, settings: BuildSettings) -> tuple[str, ...]:
        """Compute capabilities that an engine for the target is built for, before anything is started.

        Raises:
            HostError: this builder, or this machine, can't build for the target.
            UsageError: settings that the builder does not have.
        """
        ...

    def build(self, request: BuildRequest, progress: Progress) -> BuiltEngine:
        """Builds one engine and writes it to `request.out`.

        Raises:
            BuildError: the library refused the graph.
            HostError: out of memory or disk.
        """
        ...
