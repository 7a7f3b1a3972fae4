"""TOML -> `Target`. Every key is known or refused: a misspelt figure would silently be unknown.

name = "Jetson AGX Orin 64 GB"
kind = "jetson"
architecture = "orin"
unified_memory = true
engine = "tensorrt"

[compute_capability]        # a figure; likewise memory_gb, available_gb, bandwidth_gbps, dense_tflops.TYPE
value = 8.7                 # absent: there is none, or it is not known
mark = "vendor"
source = "..."

[[power_modes]]             # a mode of nvpmodel; its numbers are figures too
name = "30W"
[power_modes.power_w]
...

[signs]                     # by what a machine is recognised, see model.Signs
parts = ["p3701-0005"]

[[software]]                # a release from _releases.toml, with what differs on this device
release = "JetPack 6.2"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.errors import UsageError, closest
from motedge.targets.catalog.model import (
    ARCHITECTURES,
    ENGINES,
    KINDS,
    MATH_TYPES,
    Figure,
    PowerMode,
    Signs,
    SoftwareRow,
    Target,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("name", "kind", "architecture", "engine")
_FIGURES = ("compute_capability", "memory_gb", "available_gb", "bandwidth_gbps")
_KEYS = (*_TEXTS, *_FIGURES, "unified_memory", "dense_tflops", "power_modes", "software", "note", "signs")
_MODE_FIGURES = ("compute_scale", "bandwidth_scale", "gpu_clock_mhz")
_ROW_TEXTS = ("l4t", "cuda", "tensorrt", "tensorrt_rtx", "python", "note")
_ROW_KEYS = ("release", *_ROW_TEXTS, "accepts", "mark", "source")


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a file; UsageError names it where it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not TOML", got=str(error)) from error


def parse_releases(text: str, source: str) -> Mapping[str, SoftwareRow]:
    """Releases of system software by name, from a file of [[release]] tables."""
    raw = known_keys(source, parse_toml(text, source), ("release",))
    found: dict[str, SoftwareRow] = {}
    for table in _list(f"{source}: release", raw.get("release", [])):
        row = _row(f"{source}: release", table, {})
        if row.release in found:
            raise UsageError(f"{source}: release {row.release!r} is there twice")
        found[row.release] = row
    return found


def parse_target(name: str, text: str, source: str, releases: Mapping[str, SoftwareRow]) -> Target:
    """A device from TOML.

    Args:
        name: becomes its id.
        text: the file's content.
        source: names the file in messages.
        releases: what [[software]] may refer to.

    Raises:
        UsageError: not TOML, an unknown key (the closest is named), a missing one, a value of a wrong kind, a mark that
            is none.
    """
    raw = known_keys(source, parse_toml(text, source), _KEYS)
    missing = [key for key in (*_TEXTS, *_FIGURES, "unified_memory", "dense_tflops", "software") if key not in raw]
    if missing:
        raise UsageError(
            f"{source} lacks {', '.join(missing)}", fix='what is not known has mark = "unknown" and no value'
        )
    for key, allowed in (("kind", KINDS), ("architecture", ARCHITECTURES), ("engine", ENGINES)):
        if raw[key] not in allowed:
            raise UsageError(f"{source}: unknown {key} {raw[key]!r}", fix=closest(str(raw[key]), allowed))
    rates = known_keys(f"{source}: dense_tflops", raw["dense_tflops"], MATH_TYPES)
    return Target(
        id=name,
        name=_text(f"{source}: name", raw["name"]),
        kind=raw["kind"],
        architecture=raw["architecture"],
        unified_memory=_bool(f"{source}: unified_memory", raw["unified_memory"]),
        capability=_figure(source, raw, "compute_capability"),
        memory_gb=_figure(source, raw, "memory_gb"),
        available_gb=_figure(source, raw, "available_gb"),
        bandwidth_gbps=_figure(source, raw, "bandwidth_gbps"),
        dense_tflops={kind: _figure(f"{source}: dense_tflops", rates, kind) for kind in MATH_TYPES if kind in rates},
        power_modes=tuple(
            _mode(source, table) for table in _list(f"{source}: power_modes", raw.get("power_modes", []))
        ),
        software=tuple(
            _row(f"{source}: software", table, releases) for table in _list(f"{source}: software", raw["software"])
        ),
        engine=raw["engine"],
        note=_text(f"{source}: note", raw.get("note", "")),
        signs=_signs(f"{source}: signs", raw.get("signs", {})),
    )


def known_keys(where: str, table: Any, keys: Sequence[str]) -> Mapping[str, Any]:
    """The table itself; UsageError names the closest key for an unknown one."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} is of a wrong kind", expected="a table", got=repr(table))
    for key in table:
        if key not in keys:
            raise UsageError(f"{where}: unknown key {key!r}", fix=closest(key, keys))
    return table


def _figure(where: str, table: Mapping[str, Any], key: str) -> Figure:
    where = f"{where}: {key}"
    raw = known_keys(where, table[key], ("value", "mark", "source"))
    value = raw.get("value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UsageError(f"{where}: the value is of a wrong kind", expected="a number", got=repr(value))
    try:
        return Figure(
            None if value is None else float(value), str(raw.get("mark")), _text(where, raw.get("source", ""))
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error.what}", expected=error.expected, got=error.got, fix=error.fix) from error


def _signs(where: str, table: Any) -> Signs:
    raw = known_keys(where, table, ("parts", "models", "gpus"))
    texts = {key: tuple(_text(f"{where}: {key}", text) for text in _list(f"{where}: {key}", raw[key])) for key in raw}
    return Signs(**texts)


def _mode(source: str, table: Any) -> PowerMode:
    where = f"{source}: power_modes"
    raw = known_keys(where, table, ("name", "power_w", *_MODE_FIGURES, "note"))
    if "name" not in raw or "power_w" not in raw:
        raise UsageError(f"{where}: a mode lacks a field", expected="name and power_w", got=", ".join(raw) or "nothing")
    optional = {key: _figure(where, raw, key) for key in _MODE_FIGURES if key in raw}
    name, note = _text(f"{where}: name", raw["name"]), _text(f"{where}: note", raw.get("note", ""))
    return PowerMode(name, _figure(where, raw, "power_w"), note=note, **optional)


def _row(where: str, table: Any, releases: Mapping[str, SoftwareRow]) -> SoftwareRow:
    raw = known_keys(where, table, _ROW_KEYS)
    release = _text(f"{where}: release", raw.get("release"))
    base = releases.get(release)
    if base is None and ("mark" not in raw or "source" not in raw):
        fix = f"give it a mark and a source of its own, or take one of the catalogue: {closest(release, releases)}"
        raise UsageError(f"{where}: {release!r} has no source", fix=fix)
    texts: dict[str, Optional[str]] = {key: getattr(base, key, None) for key in _ROW_TEXTS}
    texts.update({key: _text(f"{where}: {key}", raw[key]) for key in _ROW_TEXTS if key in raw})
    accepts = raw.get("accepts", list(base.accepts) if base else [])
    return SoftwareRow(
        release=release,
        l4t=texts["l4t"],
        cuda=texts["cuda"],
        tensorrt=texts["tensorrt"],
        python=texts["python"],
        mark=str(raw.get("mark", base.mark if base else None)),
        source=_text(f"{where}: source", raw.get("source", base.source if base else "")),
        accepts=tuple(_text(f"{where}: accepts", version) for version in _list(f"{where}: accepts", accepts)),
        tensorrt_rtx=texts["tensorrt_rtx"],
        note=texts["note"] or "",
    )


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} is of a wrong kind", expected="text in quotes", got=repr(value))
    return value


def _bool(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is of a wrong kind", expected="true or false", got=repr(value))
    return value


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{where} is of a wrong kind", expected="a list", got=repr(value))
    return value
