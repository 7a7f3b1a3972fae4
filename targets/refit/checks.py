"""Whether an engine takes weights: at all, others than its own, of this library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import BundleError, HostError, UsageError, closest
from motedge.runtime.engine_files import EngineFile, EngineFiles
from motedge.targets.builders.trt.builders import TensorRtBuilder
from motedge.targets.catalog import Target
from motedge.targets.refit.known_issues import require_sound_refit


def require_refittable(old: Bundle, target: Target, graphs: Optional[Sequence[str]] = None) -> EngineFiles:
    """The record of a bundle's engines, each of which can take weights; what can be told before there are new ones.

    Raises:
        BundleError: no engines.
        UsageError: an engine that can't be refitted, a graph that was not built.
    """
    files = EngineFiles.open(old, target.id)
    names = {engine.graph for engine in files.engines}
    for graph in graphs or ():
        if graph not in names:
            raise UsageError(f"no engine of graph {graph!r} was built", fix=closest(graph, names))
    for engine in wanted_engines(files, graphs):
        # A stripped engine that has got its weights takes no others; which ones are meant is not known yet
        if engine.graph in WEIGHTLESS_GRAPHS or engine.refittable or engine.settings.get("strip_weights"):
            continue
        on_cpu = engine.builder == "onnxruntime"
        raise UsageError(
            f"{engine.file} can't be refitted",
            why="onnxruntime's files are built in seconds"
            if on_cpu
            else "its weights were folded into its kernels when it was built",
            fix=f"motedge build BUNDLE --target {target.id}"
            + (", of the bundle with the new weights" if on_cpu else " --refittable, once"),
        )
    return files


def wanted_engines(files: EngineFiles, graphs: Optional[Sequence[str]]) -> list[EngineFile]:
    """The engines of the graphs asked for; None: all."""
    return [engine for engine in files.engines if graphs is None or engine.graph in graphs]


def require_own_version(engine: EngineFile, builder: TensorRtBuilder) -> None:
    """HostError unless this is the version that built the engine.

    A version-compatible plan runs with later ones, too; what they write would be another engine.
    """
    if engine.builder_version != builder.version():
        raise HostError(
            f"{engine.file} was built by another version of {builder.name}",
            expected=engine.builder_version,
            got=builder.version(),
            why="an engine is refitted by the version that built it",
            fix="motedge build BUNDLE, with this version",
        )


def require_exchangeable(engine: EngineFile, builder: TensorRtBuilder, target: Target) -> None:
    """UsageError for an engine that takes no weights but its own; HostError where the release refits wrongly."""
    if not engine.settings.get("refittable"):
        raise UsageError(
            f"{engine.file} takes the weights that it was built from alone",
            expected="an engine built with --refittable, stripped or not",
            why="it was optimised for them (REFIT_IDENTICAL): TensorRT takes others without a word, and computes "
            "something unpredictable",
            fix=f"motedge build BUNDLE --target {target.id} --strip-weights --refittable, once",
        )
    if not (engine.refittable or engine.weights_stripped):
        raise UsageError(
            f"{engine.file} has taken weights once, and takes no others",
            why=f"{builder.name} {builder.version()} writes a stripped engine so, once it is filled",
            fix="refit from the bundle that holds the stripped engine",
        )
    require_sound_refit(builder.library())


def require_own_engine(engine: EngineFile, source: str, old: Bundle) -> None:
    """BundleError unless the engine was built from what its bundle holds: `source` is what a build would record."""
    if engine.source != source:
        raise BundleError(
            f"{engine.file} was not built from what {old.root} holds now",
            expected=f"source {source[:12]}",
            got=f"source {engine.source[:12]}",
            why="it may be of another graph: the graphs are compared, and the engine can't be",
            fix=f"motedge build {old.root} again, or give the bundle that it was built from",
        )
