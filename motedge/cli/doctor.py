"""`motedge doctor`: what this machine can do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from motedge.errors import EXIT_ENVIRONMENT, EXIT_OK
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.doctor import Report


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine can do, and what is missing",
        description="Look at Python, packages, processor, memory, GPU and Jetson release, without starting CUDA. "
        "Exits with 3 when not even the CPU can run a policy.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from motedge.doctor import examine

    report = examine(Path.cwd())
    if args.json:
        import json

        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join(_lines(report)))
    return EXIT_OK if report.verdict("run-cpu").possible else EXIT_ENVIRONMENT


def _lines(report: Report) -> Iterator[str]:
    yield f"motedge {report.motedge}, Python {report.python} ({report.python_path})"
    yield ""
    yield from _machine(report)
    yield ""
    yield f"{'package':<18} {'version':<14} {'tested':<20} {'for':<8} status"
    for package in report.packages:
        version, purpose = package.version or "-", package.extra or "run"
        yield f"{package.name:<18} {version:<14} {package.tested:<20} {purpose:<8} {package.status}"
    yield ""
    for verdict in report.verdicts:
        yield f"{verdict.task:<8} {'yes' if verdict.possible else 'no'}"
        yield from (f"         {reason}" for reason in verdict.reasons)
        if verdict.fix is not None:
            yield f"         fix: {verdict.fix}"


def _machine(report: Report) -> Iterator[str]:
    host = report.host
    usable = "" if host.usable_cores == host.cores else f", {host.usable_cores} usable here"
    yield f"system    {host.system}, {host.architecture}"
    yield f"CPU       {host.cpu}, {host.cores} cores{usable}"
    yield f"          {' '.join(host.cpu_flags) or 'no vector extensions known'}"
    if host.memory_bytes is not None:
        free = "" if host.memory_available_bytes is None else f", {format_bytes(host.memory_available_bytes)} available"
        limit = "" if host.memory_limit_bytes is None else f", limited to {format_bytes(host.memory_limit_bytes)}"
        yield f"memory    {format_bytes(host.memory_bytes)}{free}{limit}"
    yield f"disk      {format_bytes(host.disk_free_bytes)} free at {host.disk_path}"
    if report.jetson is not None:
        yield f"Jetson    {report.jetson.model or 'unknown board'}, Jetson Linux {report.jetson.l4t or 'unknown'}"
    for gpu in report.gpus:
        memory = "" if gpu.memory_mib is None else f", {format_bytes(gpu.memory_mib * 2**20)}"
        capability = "" if gpu.compute_capability is None else f", compute capability {gpu.compute_capability}"
        yield f"GPU       {gpu.name}{memory}{capability}, driver {gpu.driver or 'unknown'}"
    if report.gpu_reason is not None:
        # Before JetPack 6 a Jetson has a GPU and no nvidia-smi
        found = "the module's own" if report.jetson is not None else "none found"
        yield f"GPU       {found}: {report.gpu_reason}"
    cuda = [f"{name} {version or 'not installed'}" for name, version in report.cuda_libraries.items()]
    yield f"CUDA      {'; '.join(cuda)}"
    libraries = [f"{name} {version or 'not installed'}" for name, version in report.engine_libraries.items()]
    yield f"engines   onnxruntime: {', '.join(report.onnxruntime_providers) or 'not usable'}; {'; '.join(libraries)}"
