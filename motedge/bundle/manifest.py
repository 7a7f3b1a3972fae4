"""manifest.json as frozen dataclasses: what each file is, made by what, from what, with which numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from motedge.errors import BundleError, closest

SCHEMA = "motedge.bundle/v1"
# Graphs that have no weights and come in one variant, in fp32, for every engine library; older bundles have none
WEIGHTLESS_GRAPHS = ("solver_step",)
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle."""

    sha256: str
    bytes: int
    # What it is for: graph, weights, contract, table, tokenizer, samples
    role: str
    # sha256 over everything that determines the file, so that a stage can say "up to date"; "" where a copy
    source: str = ""


@dataclass(frozen=True)
class Variant:
    """One ONNX file of a graph."""

    # Path in the bundle
    file: str
    # External data files, paths in the bundle
    weights: tuple[str, ...]
    # "fused" or "primitive"
    dialect: str
    # "fp32", "fp16" or "bf16": the type of weights and activations
    dtype: str
    opset: int
    # None for the unquantized graph
    recipe: Optional[str] = None
    # Facts of this variant: nodes, parameters, relu2_scales, ...
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its contract and its variants, by id `<dialect>-<dtype>[-<recipe>]`."""

    contract: str
    variants: Mapping[str, Variant]


@dataclass(frozen=True)
class Manifest:
    """The whole manifest. Every field is JSON."""

    # family, variant, revision, config (transformer/config.json), checkpoint (name, fingerprint)
    model: Mapping[str, Any]
    # Resolution, frames, rows and rates that the graphs were made for; see motedge.export.shapes.ShapeSet
    shape_set: Mapping[str, Any]
    # Defaults of the policy: steps, shift, guidance, guidance_interval, embodiment, prompt_format
    policy: Mapping[str, Any]
    graphs: Mapping[str, GraphEntry]
    # Path in the bundle -> entry
    files: Mapping[str, FileEntry]
    # Table name -> {file, dtype, shape, meaning}
    tables: Mapping[str, Any] = field(default_factory=dict)
    # Sample name -> {file, variant of the reference, tolerance}, or {"none": reason}
    samples: Mapping[str, Any] = field(default_factory=dict)
    # Versions of the tools that made the bundle
    tools: Mapping[str, str] = field(default_factory=dict)
    # Fallbacks taken and things left out, in words
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """JSON form, schema first."""
        values = dataclasses.asdict(self)
        return {"schema": values.pop("schema"), **values}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Parses the JSON form.

        Raises:
            BundleError: a newer or unknown schema, an unknown key, a missing field.
        """
        _check_schema(raw.get("schema"))
        entries = dict(raw)
        entries["graphs"] = {name: _graph(value) for name, value in raw.get("graphs", {}).items()}
        entries["files"] = {name: _entry(FileEntry, value) for name, value in raw.get("files", {}).items()}
        entries["notes"] = tuple(raw.get("notes", ()))
        return _entry(cls, entries)


def _check_schema(schema: object) -> None:
    if schema == SCHEMA:
        return
    name, _, version = str(schema).partition("/v")
    newer = name == SCHEMA.partition("/v")[0] and version.isdigit() and int(version) > int(SCHEMA.partition("/v")[2])
    raise BundleError(
        "the bundle's manifest has a newer schema" if newer else "this is not a manifest of a motedge bundle",
        expected=SCHEMA,
        got=schema,
        fix="upgrade motedge on this machine, or export again with this version" if newer else "check the path",
    )


def _graph(raw: Mapping[str, Any]) -> GraphEntry:
    variants = {}
    for name, value in raw.get("variants", {}).items():
        variants[name] = _entry(Variant, {**value, "weights": tuple(value.get("weights", ()))})
    return _entry(GraphEntry, {**raw, "variants": variants})


def _entry(cls: type[_Entry], raw: Mapping[str, Any]) -> _Entry:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            raise BundleError(f"manifest.json: unknown key {key!r} in {cls.__name__}", fix=closest(key, known))
    try:
        return cls(**raw)
    except TypeError as error:
        raise BundleError(f"manifest.json: {cls.__name__} lacks a field", got=str(error)) from error
