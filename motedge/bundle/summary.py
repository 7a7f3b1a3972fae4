"""What a bundle holds, gathered from its manifest alone: the data behind `motedge inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from motedge.bundle.folder import MANIFEST, Bundle
from motedge.bundle.manifest import Manifest, Variant
from motedge.errors import BundleError

SUMMARY_SCHEMA = "motedge.inspect/v1"


def summarize(bundle: Bundle) -> dict[str, Any]:
    """The bundle as one JSON object: model, shape set, policy, variants, tables, samples, sizes, notes.

    `bytes` of a variant counts its ONNX file and all its weight files; files that variants share are counted once in
    `total.bytes`.

    Raises:
        BundleError: the manifest names a file without an entry, or a table or sample lacks a field.
    """
    manifest = bundle.manifest
    return {
        "schema": SUMMARY_SCHEMA,
        "bundle": str(bundle.root),
        "model": {key: manifest.model.get(key) for key in ("family", "variant", "revision", "checkpoint")},
        "shape_set": dict(manifest.shape_set),
        "policy": dict(manifest.policy),
        "variants": [
            {"graph": graph, "variant": name, **_variant(manifest, variant)}
            for graph, entry in manifest.graphs.items()
            for name, variant in entry.variants.items()
        ],
        "tables": {name: _table(manifest, name, table) for name, table in manifest.tables.items()},
        "samples": {name: _sample(name, sample) for name, sample in manifest.samples.items()},
        "total": {"files": len(manifest.files), "bytes": _bytes(manifest, manifest.files)},
        "tools": dict(manifest.tools),
        "notes": list(manifest.notes),
    }


def find_damage(bundle: Bundle) -> list[BundleError]:
    """Every file that is missing or differs in size or sha256, and every variant that refers outside; reads all bytes.

    Unlike `Bundle.check_files`, which stops at the first, so that one look names all that is to be copied again.
    """
    damage = []
    for name in bundle.manifest.files:
        try:
            bundle.check_files([name])
        except BundleError as error:
            damage.append(error)
    if damage:
        return damage
    for graph, entry in bundle.manifest.graphs.items():
        for variant in entry.variants:
            try:
                bundle.check_variant(graph, variant, content=False)
            except BundleError as error:
                damage.append(error)
    return damage


def unlisted_files(bundle: Bundle) -> list[str]:
    """Files in the folder that the manifest does not know: those of an interrupted stage, or a stranger's."""
    root = bundle.root
    found = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    known = {MANIFEST, *bundle.manifest.files}
    # Engines have a record of their own, build.json: they are made on the device, of a bundle that stays as it is
    return [name for name in found if name not in known and not name.startswith("engines/")]


def _variant(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    return {
        "dialect": variant.dialect,
        "dtype": variant.dtype,
        "recipe": variant.recipe,
        "opset": variant.opset,
        "nodes": variant.facts.get("nodes"),
        "parameters": variant.facts.get("parameters"),
        "bytes": _bytes(manifest, [variant.file, *variant.weights]),
        "file": variant.file,
        "weights": list(variant.weights),
    }


def _table(manifest: Manifest, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("file", "dtype", "shape") if key not in table]
    if missing:
        raise BundleError(f"manifest.json: table {name!r} lacks {', '.join(missing)}", fix="export again")
    return {**table, "bytes": _bytes(manifest, [table["file"]])}


def _sample(name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    if "file" not in sample and "none" not in sample:
        raise BundleError(
            f"manifest.json: sample {name!r} says neither where it is nor why it is absent",
            expected="a field 'file' or 'none'",
            fix="export again",
        )
    return dict(sample)


def _bytes(manifest: Manifest, names: Iterable[str]) -> int:
    """Sum of the recorded sizes; BundleError if the manifest names a file that it has no entry for."""
    names = list(names)
    missing = [name for name in names if name not in manifest.files]
    if missing:
        raise BundleError(f"{missing[0]} is not in the manifest's list of files", fix="export again")
    return sum(manifest.files[name].bytes for name in names)
