"""The export itself: checkpoint in, bundle out. Streaming, resumable, up to date when nothing changed.

One thread writes weights while another traces graphs; neither holds more than one tensor.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motedge.bundle import GraphEntry, Variant
from motedge.checkpoint.fp8_layout import projection_scales
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, UsageError
from motedge.export import describe, opset17, record, solver_graph
from motedge.export.extras import EXTRAS, extra_graphs
from motedge.export.journal import Journal
from motedge.export.onnx_file import WEIGHTS_FOLDER, attach_weights, check_model, write_model
from motedge.export.plan import ExportPlan, GraphPlan, WeightFile, make_plan
from motedge.export.progress import ByteProgress
from motedge.export.shapes import ShapeSet
from motedge.export.tables import TableSpec, table_dtype, write_table
from motedge.export.variants import TEST_VARIANTS, VARIANTS, VariantSpec
from motedge.export.weights import write_weights
from motedge.files import PathLike, copy_file, require_free, sha256_file, write_json

# Hashing, casting and writing release the interpreter, so that two files at a time keep two cores busy
WRITERS = 2
CHECKPOINT_SCALES = "calibration/checkpoint.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """What to export."""

    shapes: ShapeSet
    variants: Sequence[VariantSpec]
    # "auto": every sample that memory and time allow; "graphs": no whole tick; "none"
    samples: str = "auto"
    # Groups of motedge.export.extras.EXTRAS: graphs beside the policy's
    extras: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.samples not in record.MODES:
            raise UsageError("unknown kind of samples", expected=" or ".join(record.MODES), got=self.samples)


@dataclass
class ExportReport:
    """What an export did."""

    root: Path
    # Files written now; all others were up to date
    written: list[str] = field(default_factory=list)
    # Wall time by step, seconds
    seconds: dict[str, float] = field(default_factory=dict)


def export_bundle(checkpoint: Checkpoint, out: PathLike, options: ExportOptions) -> ExportReport:
    """Exports a checkpoint into a bundle folder; does nothing to files that are up to date.

    Raises:
        CheckpointError: the checkpoint contradicts itself, lacks a part, or a weight is not finite.
        BundleError: the folder holds the bundle of another checkpoint or shape set.
        HostError: the disk is full; nothing half-written is left.
    """
    checkpoint.check()
    tokenizer, special_tokens = checkpoint.tokenizer_files(), checkpoint.special_tokens()
    plan = make_plan(checkpoint, options.shapes, options.variants, options.extras)
    require_own_folder(Path(out))
    journal = Journal(Path(out), checkpoint.fingerprint())
    _require_same_origin(journal, plan)
    written = sum(entry.bytes for name, entry in journal.files.items() if (journal.root / name).is_file())
    require_free(journal.root, plan.total_bytes - written, "the export")
    report = ExportReport(journal.root, journal.written)

    graphs = {**_earlier_extras(plan, journal), **_export_graphs(plan, journal, report)}
    graphs[solver_graph.GRAPH] = _export_solver(plan, journal)
    with _timed(report, "tables"):
        # Those of graphs that stay, too
        tables = dict(journal.previous.tables) if journal.previous else {}
        tables.update({spec.name: _export_table(spec, plan, journal) for spec in plan.tables})
    for name, source in tokenizer.items():
        copy = functools.partial(copy_file, source)
        journal.make(f"tokenizer/{name}", "tokenizer", sha256_file(source), copy)
    _keep_scales(checkpoint, journal)
    manifest = describe.manifest(plan, journal, graphs, tables, special_tokens)
    with _timed(report, "samples"):
        samples = record.record_samples(plan, journal, manifest, options.samples)
    journal.finish(describe.manifest(plan, journal, graphs, tables, special_tokens, samples))
    return report


def _earlier_extras(plan: ExportPlan, journal: Journal) -> dict[str, GraphEntry]:
    """Graphs beside the policy's that an earlier export made, which stay, like variants, when not asked for again."""
    known = journal.previous.graphs if journal.previous else {}
    planned = {graph.spec.name for graph in plan.graphs}
    names = {spec.name for spec in extra_graphs(list(EXTRAS))}
    return {name: entry for name, entry in known.items() if name in names - planned}


def _keep_scales(checkpoint: Checkpoint, journal: Journal) -> None:
    """Scales that a quantized checkpoint brings: quantizing its bundle then needs no calibration."""
    if checkpoint.precision == "bf16":
        return
    scales = projection_scales(checkpoint.transformer)
    document = {"schema": "motedge.checkpoint-scales/v1", "scales": scales}
    journal.make(CHECKPOINT_SCALES, "calibration", scales, lambda path: write_json(path, document))


def require_own_folder(root: Path) -> None:
    """Refuses an --out that is a file, or the folder of a checkpoint.

    Raises:
        BundleError: it is.
    """
    if root.exists() and not root.is_dir():
        raise BundleError(f"{root} is a file, not a folder", fix="give another --out folder")
    if (root / "model_index.json").exists() or (root / "transformer").exists():
        raise BundleError(
            f"{root} holds a checkpoint",
            why="a bundle's files would be mixed with it",
            fix="give another --out folder",
        )


def _require_same_origin(journal: Journal, plan: ExportPlan) -> None:
    if journal.previous is None:
        return
    made_from = journal.previous.model.get("checkpoint", {}).get("fingerprint")
    fix = "give another --out folder, or remove this one"
    if made_from != journal.origin:
        raise BundleError(f"{journal.root} is the bundle of another checkpoint", fix=fix)
    if journal.previous.shape_set != plan.shapes.to_dict():
        raise BundleError(
            f"{journal.root} was exported for another shape set",
            expected=plan.shapes.name,
            got=journal.previous.shape_set.get("name"),
            fix=fix,
        )


def _export_graphs(plan: ExportPlan, journal: Journal, report: ExportReport) -> dict[str, GraphEntry]:
    entries: dict[str, GraphEntry] = {}
    with ByteProgress(sum(plan.weight_bytes.values()), "weights") as progress, ThreadPoolExecutor(WRITERS) as writer:
        try:
            pending = _submit_weights(writer, plan, journal, progress)
            for graph in plan.graphs:
                with _timed(report, f"{graph.spec.name}.graphs"):
                    entries[graph.spec.name] = _export_graph(graph, plan, journal)
                # A full disk or a damaged weight should not wait for the other graphs
                for future in pending:
                    if future.done():
                        future.result()
            with _timed(report, "weights (after the graphs)"):
                for future in pending:
                    future.result()
        except BaseException:
            progress.stop()
            writer.shutdown(cancel_futures=True)
            raise
    with _timed(report, "onnx checker"):
        for entry in entries.values():
            for variant in entry.variants.values():
                if variant.file in journal.written:
                    check_model(journal.root / variant.file)
    return entries


def _submit_weights(
    writer: ThreadPoolExecutor, plan: ExportPlan, journal: Journal, progress: ByteProgress
) -> list[Future[bool]]:
    futures = []
    for name, file in plan.weight_files.items():
        parts = [[s.spec.name, s.spec.shape, str(s.spec.dtype), s.spec.layout, s.offset] for s in file.slots]

        def write(path: Path, file: WeightFile = file) -> tuple[str, int]:
            return write_weights(path, file.slots, file.store, progress)

        futures.append(writer.submit(journal.make, f"graphs/{WEIGHTS_FOLDER}/{name}", "weights", parts, write))
    return futures


def _export_graph(graph: GraphPlan, plan: ExportPlan, journal: Journal) -> GraphEntry:
    name, contract = graph.spec.name, graph.contract.to_dict()
    contract_file = f"contracts/{name}.json"
    renewed = journal.make(contract_file, "contract", contract, lambda path: write_json(path, contract))
    known = journal.previous.graphs.get(name) if journal.previous else None
    # Variants of an older contract can't be mixed with new ones
    variants = dict(known.variants) if known and not renewed else {}
    for spec in graph.slots:
        variants[spec.id] = _export_variant(graph, spec, plan, journal)
    order = {name: index for index, name in enumerate((*VARIANTS, *TEST_VARIANTS))}
    ordered = sorted(variants.items(), key=lambda item: order.get(item[0], len(order)))
    return GraphEntry(contract_file, dict(ordered))


def _export_variant(graph: GraphPlan, spec: VariantSpec, plan: ExportPlan, journal: Journal) -> Variant:
    slots = graph.slots[spec]
    file = f"graphs/{graph.spec.name}.{spec.id}.onnx"

    def write(path: Path) -> None:
        ranges = graph.spec.relu2_ranges(plan.checkpoint, spec)
        module = graph.spec.empty_module(plan.checkpoint, plan.shapes, spec, ranges)
        model = graph.spec.assemble(module, graph.contract, spec)
        if spec.lowered == opset17.OPSET:
            opset17.lower_to_opset17(model)
        attach_weights(model, slots)
        write_model(model, path, describe.graph_metadata(graph.spec.name, ranges))

    if journal.make(file, "graph", [graph.contract.to_dict(), spec.id, spec.opset, describe.tool_versions()], write):
        _log.info("traced %s %s", graph.spec.name, spec.id)
    weights = sorted({f"graphs/{WEIGHTS_FOLDER}/{slot.file}" for slot in slots})
    facts = describe.graph_facts(journal.root / file)
    return Variant(file, tuple(weights), spec.dialect, spec.dtype, spec.opset, facts=facts)


def _export_solver(plan: ExportPlan, journal: Journal) -> GraphEntry:
    name, variant, contract = solver_graph.GRAPH, solver_graph.VARIANT, plan.solver.to_dict()
    contract_file, file = f"contracts/{name}.json", f"graphs/{name}.{variant}.onnx"
    journal.make(contract_file, "contract", contract, lambda path: write_json(path, contract))
    parts = [contract, variant, solver_graph.OPSET, describe.tool_versions()]
    metadata = describe.graph_metadata(name, ())
    if journal.make(file, "graph", parts, lambda path: solver_graph.write_solver(plan.solver, path, metadata)):
        check_model(journal.root / file)
    facts = describe.graph_facts(journal.root / file)
    entry = Variant(file, (), solver_graph.DIALECT, solver_graph.DTYPE, solver_graph.OPSET, facts=facts)
    return GraphEntry(contract_file, {variant: entry})


def _export_table(spec: TableSpec, plan: ExportPlan, journal: Journal) -> dict[str, Any]:
    dtype = table_dtype(spec, plan.checkpoint)
    journal.make(
        spec.file, "table", [spec.shape, spec.key, dtype], lambda path: write_table(path, spec, plan.checkpoint)
    )
    return {"file": spec.file, "dtype": dtype, "shape": list(spec.shape), "meaning": spec.meaning}


@contextlib.contextmanager
def _timed(report: ExportReport, step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report.seconds[step] = time.perf_counter() - start
