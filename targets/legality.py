"""What can run where: target, graph variant, recipe and version of the engine library -> legal, or every reason not.

Nothing is tried here: each reason is a rule with its source, and what was never tried anywhere is a caution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from motedge.errors import HostError
from motedge.quant.schemes import INT4, NVFP4, OPSET_BLOCKED, Scheme
from motedge.runtime.backends.registry import BACKENDS
from motedge.runtime.backends.tensorrt.versions import (
    FUSED,
    PRIMITIVE,
    RTX,
    RTX_CAPABILITIES,
    TensorRtVersion,
    find_version,
)
from motedge.targets.catalog import SoftwareRow, Target, precisions

ONNXRUNTIME, TENSORRT, TENSORRT_RTX = "onnxruntime", "tensorrt", "tensorrt-rtx"
# What onnxruntime takes: the dialect of CPU graphs first
_CPU_DIALECTS = (PRIMITIVE, FUSED)


@dataclass(frozen=True)
class Reason:
    """Why not, or what to mind."""

    # A sentence without its full stop
    what: str
    # Where that is said, or what showed it
    source: str


@dataclass(frozen=True)
class Legality:
    """The answer for one graph."""

    # Empty: legal
    reasons: tuple[Reason, ...] = ()
    # What holds but was never tried, or is taken on
    cautions: tuple[Reason, ...] = ()

    @property
    def legal(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


@dataclass(frozen=True)
class EngineLibrary:
    """One version of an engine library on a target."""

    # "tensorrt", "tensorrt-rtx" or "onnxruntime"
    name: str
    # "10.3.0.30"; None for onnxruntime, whose rules do not depend on it
    version: Optional[str]
    # Release of the target's software that brings or accepts it: "JetPack 6.2"
    release: str
    # None for onnxruntime
    row: Optional[TensorRtVersion]

    @property
    def dialects(self) -> tuple[str, ...]:
        """Dialects that it takes, the preferred one first."""
        return _CPU_DIALECTS if self.row is None else self.row.dialects


@dataclass(frozen=True)
class Candidate:
    """A graph that might be built: what a variant says of itself."""

    dialect: str
    dtype: str
    opset: int
    # Schemes of its projections, each once
    schemes: tuple[Scheme, ...] = ()
    # Whether it multiplies matrices, which tensor cores do in other types than fp32
    has_weights: bool = True


def engine_libraries(target: Target) -> list[EngineLibrary]:
    """Every engine library that the target's releases bring or accept, oldest release first, supported ones alone."""
    found = []
    for row in target.software:
        if target.engine == ONNXRUNTIME:
            found.append(EngineLibrary(ONNXRUNTIME, None, row.release, None))
        elif target.engine == TENSORRT_RTX:
            if row.tensorrt_rtx is not None:
                found.append(EngineLibrary(TENSORRT_RTX, row.tensorrt_rtx, row.release, RTX))
        else:
            found += _tensorrt(row)
    return found


def find_library(target: Target, version: Optional[str] = None) -> EngineLibrary:
    """The library to plan with.

    Args:
        target: the device.
        version: of TensorRT, "10.3" or "10.3.0.30"; None: what the target's newest release brings.

    Raises:
        HostError: no release of the target has a supported library, or none is of this version.
    """
    known = engine_libraries(target)
    if version is None:
        newest = [library for library in known if library.release == known[-1].release]
        if newest:
            return newest[0]
        raise HostError(
            f"the catalogue names no supported engine library for {target.id}",
            got=", ".join(row.release for row in target.software) or "no software",
            fix=f"motedge targets show {target.id}",
        )
    wanted = [library for library in known if library.version and _is_of(library.version, version)]
    if not wanted:
        have = ", ".join(dict.fromkeys(str(library.version) for library in known if library.version)) or "none"
        raise HostError(
            f"no release of {target.id} has TensorRT {version}",
            expected=have,
            got=version,
            fix=f"leave --tensorrt out, or motedge targets show {target.id}",
        )
    return wanted[-1]


def judge(target: Target, library: EngineLibrary, candidate: Candidate) -> Legality:
    """Whether a graph can be built with a library for a target."""
    rules = _cpu(candidate) if library.row is None else _gpu(target, library, library.row, candidate)
    found = list(rules)
    return Legality(
        tuple(reason for reason, refuses in found if refuses), tuple(reason for reason, refuses in found if not refuses)
    )


# A reason, and whether it refuses
_Rule = tuple[Reason, bool]


def _cpu(candidate: Candidate) -> Iterable[_Rule]:
    runs = BACKENDS[ONNXRUNTIME].runs
    pair = (candidate.dialect, candidate.dtype)
    formats = [scheme.weight for scheme in candidate.schemes]
    for name in (candidate.dtype, *dict.fromkeys(formats)):
        precision = precisions()[name]
        if precision.cpu == "refused":
            yield Reason(f"{name} does not run on a CPU", precision.cpu_source), True
        elif precision.cpu == "emulated":
            fits = pair == (PRIMITIVE, "fp32")
            what = "is emulated, for accuracy and not for speed" if fits else "needs the graph in primitive-fp32"
            yield Reason(f"{name} {what}", precision.cpu_source), not fits
    if pair not in runs and precisions()[candidate.dtype].cpu != "refused":
        known = " or ".join("-".join(entry) for entry in runs)
        yield Reason(f"onnxruntime runs {known}, not {'-'.join(pair)}", "motedge.runtime.backends.registry"), True


def _gpu(target: Target, library: EngineLibrary, row: TensorRtVersion, candidate: Candidate) -> Iterable[_Rule]:
    sm = target.compute_capability
    named = f"{'TensorRT-RTX' if library.name == TENSORRT_RTX else 'TensorRT'} {library.version}"
    for name in dict.fromkeys((candidate.dtype, *(scheme.weight for scheme in candidate.schemes))):
        least = precisions()[name].least_sm
        if sm is not None and least.value is not None and sm < least.value:
            yield (
                Reason(f"{name} needs compute capability {least.value}, the device has {sm}", least.source),
                True,
            )
        if name not in row.types:
            yield Reason(f"{named} has no {name}", row.sources.get("types", row.where)), True
    if library.name == TENSORRT_RTX and f"{sm:.1f}" not in RTX_CAPABILITIES:
        known = ", ".join(RTX_CAPABILITIES)
        yield (
            Reason(f"TensorRT-RTX builds for compute capability {known}, not {sm}", row.sources["ahead_of_time"]),
            True,
        )
    if not row.takes(candidate.dialect):
        what = f"{named} has no operators of the {candidate.dialect} dialect"
        yield Reason(what, row.sources.get("dialects", row.where)), True
    yield from _opset(named, row, candidate)
    if (candidate.dialect, candidate.dtype) == (FUSED, "fp32"):
        source = 'TensorRT-RTX 1.7.1: "Attention operation was not supported by a dedicated kernel"'
        yield Reason("there is no fused attention kernel in fp32", source), True
    if (candidate.dialect, candidate.dtype) == (PRIMITIVE, "fp32"):
        if any(scheme.weight == NVFP4 for scheme in candidate.schemes):
            source = precisions()["nvfp4"].cpu_source
            yield Reason("the emulation of nvfp4 in primitive-fp32 is for CPUs", source), True
        elif candidate.has_weights:
            source = "tensor cores take no fp32; TF32 is not used in strongly typed networks unless asked for"
            yield Reason("fp32 is many times slower than fp16 here", source), False


def _opset(named: str, row: TensorRtVersion, candidate: Candidate) -> Iterable[_Rule]:
    if candidate.opset <= row.max_opset:
        return
    what = f"the graph is of opset {candidate.opset}, {named} documents {row.max_opset}"
    formats = {scheme.weight for scheme in candidate.schemes}
    if candidate.opset == OPSET_BLOCKED and INT4 in formats and INT4 in row.types:
        # Its parser has INT4; only the operator's version number is newer than the documentation's
        yield Reason(f"{what}: INT4 was not verified there", row.sources["max_opset"]), False
    else:
        yield Reason(what, row.sources["max_opset"]), True


def _tensorrt(row: SoftwareRow) -> list[EngineLibrary]:
    found = []
    for version in filter(None, (row.tensorrt, *row.accepts)):
        try:
            found.append(EngineLibrary(TENSORRT, version, row.release, find_version(version)))
        except HostError:
            # A release may bring a TensorRT that nothing is built for
            continue
    return found


def _is_of(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(f"{wanted}.")
