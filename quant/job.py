"""The quantization itself: bundle in, bundle out, with the calibration and the evidence inside.

Files that are up to date are left alone, so that an interrupted run goes on and another recipe adds to the same bundle.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motedge.bundle import Bundle, GraphEntry, Manifest, Variant
from motedge.errors import BundleError
from motedge.export.describe import tool_versions
from motedge.export.journal import Journal
from motedge.export.onnx_file import WEIGHTS_FOLDER
from motedge.files import PathLike, atomic_open, copy_file, require_free
from motedge.quant.calibration.store import FACTS, NUMBERS, calibration_digest, save_calibration
from motedge.quant.emission.variant import Emission, emission_facts, plan_emission, write_quantized
from motedge.quant.evidence import FIDELITY_FOLDER, gates_of_samples, measure
from motedge.quant.fidelity.measure import FidelityOptions
from motedge.quant.fidelity.report import FidelityReport, read_report
from motedge.quant.parameters import parameters_digest
from motedge.quant.plan import QuantizePlan
from motedge.quant.statistics import Statistics

# Copied as they are, by role in the manifest
_COPIED_ROLES = ("contract", "table", "tokenizer", "samples", "calibration")
_log = logging.getLogger(__name__)


@dataclass
class QuantizeReport:
    """What a quantization did."""

    root: Path
    fidelity: FidelityReport
    # Files written now; all others were up to date
    written: list[str] = field(default_factory=list)


def quantize_bundle(
    plan: QuantizePlan, statistics: Statistics, out: PathLike, options: FidelityOptions
) -> QuantizeReport:
    """Writes the quantized bundle, or adds a recipe to one.

    Args:
        plan: what to quantize.
        statistics: what is known about its sites.
        out: the folder of the new bundle; never the bundle itself.
        options: how fidelity is measured, and the gate.

    Raises:
        BundleError: the folder holds something else.
        ExportError: a weight that can't be quantized.
        HostError: the disk is full; nothing half-written is left.
    """
    source, root = plan.bundle, Path(out)
    journal = open_journal(source, root)
    require_free(root, _expected_bytes(plan), "the quantized bundle")
    graphs = dict(journal.previous.graphs) if journal.previous else {}
    written: dict[tuple[str, str], Emission] = {}
    for graph in plan.order:
        for base in plan.variants:
            lender = written.get((plan.lender(graph) or "", base))
            written[graph, base] = _emit(plan, statistics, journal, (graph, base), lender)
    for graph in source.manifest.graphs:
        known = graphs[graph].variants if graph in graphs else {}
        own = {e.id: _variant(plan, statistics, e, root) for (g, _), e in written.items() if g == graph}
        kept = {} if graph in plan.schemes else _copy_variants(plan, journal, graph)
        graphs[graph] = GraphEntry(source.graph(graph).contract, {**known, **kept, **own})
    _copy_rest(source, journal)
    _keep_statistics(plan, statistics, journal)
    manifest = _manifest(plan, journal, graphs)
    quantized = Bundle(root, manifest)
    fidelity = _evidence(plan, statistics, journal, quantized, options)
    samples = gates_of_samples(plan, statistics, quantized)
    final = _manifest(plan, journal, _with_verdict(graphs, plan.recipe.id, fidelity))
    journal.finish(dataclasses.replace(final, samples=samples))
    return QuantizeReport(root, fidelity, journal.written)


def open_journal(source: Bundle, root: Path) -> Journal:
    """What the folder holds so far.

    Raises:
        BundleError: it is the source itself, or holds a bundle of another checkpoint or shape set.
    """
    if root.resolve() == source.root.resolve():
        raise BundleError(
            f"{root} is the bundle to be quantized", fix="give another --out folder; nothing is changed in place"
        )
    journal = Journal(root, str(source.manifest.model["checkpoint"]["fingerprint"]))
    previous = journal.previous
    if previous is None:
        return journal
    if previous.model != source.manifest.model or previous.shape_set != source.manifest.shape_set:
        raise BundleError(f"{root} holds the bundle of another model or shape set", fix="give another --out folder")
    recipes = {v.recipe for graph in previous.graphs.values() for v in graph.variants.values()}
    if recipes == {None}:
        raise BundleError(
            f"{root} holds an unquantized bundle", why="its files would be mixed", fix="give another --out folder"
        )
    return journal


def _expected_bytes(plan: QuantizePlan) -> int:
    sizes = [plan.weight_bytes(graph, base)[1] for graph in plan.bundle.manifest.graphs for base in plan.bases(graph)]
    return sum(sizes)


def _emit(
    plan: QuantizePlan, statistics: Statistics, journal: Journal, variant: tuple[str, str], lender: Emission | None
) -> Emission:
    """One quantized variant: its ONNX file and its weight files, unless they are up to date."""
    graph, base = variant
    known = statistics.parameters[graph]
    emission = plan_emission(plan.bundle, graph, base, plan.recipe.id, known, lender)
    entry = plan.bundle.variant(graph, base)
    parts = [parameters_digest(known), plan.bundle.manifest.files[entry.file].sha256, tool_versions()]
    if lender is not None:
        # Where its data lie follows from these
        lent = plan.bundle.manifest.files[plan.bundle.variant(lender.graph, base).file].sha256
        parts += [parameters_digest(lender.parameters), lent]

    def write() -> None:
        _log.info("writing %s %s", emission.graph, emission.id)
        write_quantized(plan.bundle, emission, journal.root)

    roles = {emission.data_file: "weights", emission.file: "graph"}
    _make_together(journal, roles, parts, write)
    for name in emission.kept:
        _copy(plan.bundle, journal, f"graphs/{WEIGHTS_FOLDER}/{name}")
    return emission


def _make_together(journal: Journal, roles: Mapping[str, str], parts: Any, write: Callable[[], None]) -> None:
    """Makes files that one call writes all of, unless they are up to date."""
    written = not any(journal.missing(name, parts) for name in roles)

    def ensure(path: Path) -> None:
        nonlocal written
        if not written:
            write()
        written = True

    for name, role in roles.items():
        journal.make(name, role, parts, ensure)


def _variant(plan: QuantizePlan, statistics: Statistics, emission: Emission, root: Path) -> Variant:
    recipe = plan.recipe
    facts = {
        **emission_facts(emission, root),
        "quantization": {
            "recipe": recipe.id,
            "revision": recipe.revision,
            "fingerprint": recipe.fingerprint(),
            "statistics": statistics.source,
        },
    }
    dialect, _, dtype = emission.base.rpartition("-")
    files = emission.weight_files(root)
    return Variant(emission.file, files, dialect, dtype, emission.opset, recipe=recipe.id, facts=facts)


def _copy_variants(plan: QuantizePlan, journal: Journal, graph: str) -> dict[str, Variant]:
    """The unquantized variants of a graph that the recipe leaves alone."""
    kept = {}
    for base in plan.bases(graph):
        entry = plan.bundle.variant(graph, base)
        plan.bundle.check_variant(graph, base, content=False)
        for name in (entry.file, *entry.weights):
            _copy(plan.bundle, journal, name)
        kept[base] = entry
    return kept


def _copy_rest(source: Bundle, journal: Journal) -> None:
    for name, entry in source.manifest.files.items():
        if entry.role in _COPIED_ROLES:
            _copy(source, journal, name)


def _copy(source: Bundle, journal: Journal, name: str) -> None:
    entry = source.manifest.files[name]

    def write(path: Path) -> tuple[str, int]:
        source.check_files([name])
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source.path(name), path)
        return entry.sha256, entry.bytes

    journal.make(name, entry.role, entry.sha256, write)


def _keep_statistics(plan: QuantizePlan, statistics: Statistics, journal: Journal) -> None:
    """The recipe, and what calibration found: another recipe can start from it."""
    folder = f"calibration/{plan.recipe.id}"
    text = plan.recipe.to_toml()
    journal.make(f"{folder}/recipe.toml", "recipe", text, lambda path: _write_text(path, text))
    if statistics.calibration is None:
        return
    calibration = statistics.calibration
    roles = {f"{folder}/{name}": "calibration" for name in (NUMBERS, FACTS)}
    _make_together(
        journal, roles, calibration_digest(calibration), lambda: save_calibration(journal.root / folder, calibration)
    )


def _write_text(path: Path, text: str) -> None:
    with atomic_open(path, "w") as stream:
        stream.write(text)


def _evidence(
    plan: QuantizePlan, statistics: Statistics, journal: Journal, quantized: Bundle, options: FidelityOptions
) -> FidelityReport:
    """The fidelity report: measured, or read where nothing that it depends on has changed."""
    folder = f"{FIDELITY_FOLDER}/{plan.recipe.id}"
    digests = {graph: parameters_digest(known) for graph, known in statistics.parameters.items()}
    data = dataclasses.asdict(statistics.calibration.data) if statistics.calibration else None
    parts = [digests, data, bool(statistics.dataset), dataclasses.asdict(options), list(plan.variants), tool_versions()]
    roles = {f"{folder}/report.{kind}": "fidelity" for kind in ("json", "html")}
    _make_together(journal, roles, parts, lambda: measure(plan, statistics, quantized, options, journal.root / folder))
    return read_report(journal.root / folder)


def _with_verdict(graphs: Mapping[str, GraphEntry], recipe: str, fidelity: FidelityReport) -> dict[str, GraphEntry]:
    def judged(variant: Variant) -> Variant:
        if variant.recipe != recipe:
            return variant
        return dataclasses.replace(variant, facts={**variant.facts, "fidelity": fidelity.verdict.to_dict()})

    return {
        name: GraphEntry(entry.contract, {key: judged(v) for key, v in entry.variants.items()})
        for name, entry in graphs.items()
    }


def _manifest(plan: QuantizePlan, journal: Journal, graphs: Mapping[str, GraphEntry]) -> Manifest:
    source = plan.bundle.manifest
    earlier: dict[str, Any] = dict(journal.previous.samples) if journal.previous else dict(source.samples)
    return dataclasses.replace(
        source,
        graphs=dict(graphs),
        files=journal.bundle_files(),
        samples=earlier,
        tools={**source.tools, **tool_versions()},
    )
