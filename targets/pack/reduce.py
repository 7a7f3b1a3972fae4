"""The manifest of a packed bundle: the graphs in their chosen variants, and the files that these need."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from motedge.bundle import Bundle, GraphEntry, Manifest
from motedge.errors import BundleError
from motedge.targets.builders.selection import Choice

# Of calibration/RECIPE/, all that a build wants to know
_RECIPE_FILE = "recipe.toml"


def reduced_manifest(bundle: Bundle, choices: Sequence[Choice], without_graphs: Collection[str], note: str) -> Manifest:
    """The manifest of what is packed.

    Args:
        bundle: the whole bundle.
        choices: a variant a graph.
        without_graphs: graphs that go as engines alone; their contracts and samples are kept.
        note: what was done, for the manifest's notes.

    Raises:
        BundleError: the manifest names a file that it has no entry for.
    """
    manifest = bundle.manifest
    graphs = {choice.graph: _graph(bundle, choice, choice.graph in without_graphs) for choice in choices}
    names: dict[str, None] = {}
    for entry in graphs.values():
        names[entry.contract] = None
        for variant in entry.variants.values():
            names.update(dict.fromkeys((variant.file, *variant.weights)))
    named = (*manifest.tables.values(), *manifest.samples.values())
    names.update(dict.fromkeys(str(table["file"]) for table in named if "file" in table))
    names.update(dict.fromkeys(name for name in manifest.files if name.startswith("tokenizer/")))
    for recipe in dict.fromkeys(choice.entry.recipe for choice in choices if choice.entry.recipe):
        names.update(dict.fromkeys(_of_recipe(manifest, recipe)))
    missing = [name for name in names if name not in manifest.files]
    if missing:
        raise BundleError(f"{missing[0]} is not in the manifest's list of files", fix="export again")
    return dataclasses.replace(
        manifest,
        graphs=graphs,
        files={name: manifest.files[name] for name in sorted(names)},
        notes=(*manifest.notes, note),
    )


def _graph(bundle: Bundle, choice: Choice, engine_alone: bool) -> GraphEntry:
    contract = bundle.graph(choice.graph).contract
    return GraphEntry(contract, {} if engine_alone else {choice.variant: choice.entry})


def _of_recipe(manifest: Manifest, recipe: str) -> list[str]:
    """The evidence of a quantization, and the recipe itself; ranges and statistics stay behind."""
    return [
        name
        for name in manifest.files
        if name.startswith(f"fidelity/{recipe}/") or name == f"calibration/{recipe}/{_RECIPE_FILE}"
    ]
