"""From what a machine has to what it can do: export, run on the CPU, run on the GPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.doctor.packages import Package

# torch and the onnx tools of the export extra have no release for older Pythons
EXPORT_PYTHON = (3, 10)
CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Verdict:
    """Whether one task can be done here."""

    # "export", "run-cpu" or "run-gpu"
    task: str
    possible: bool
    # What is missing or untested, one sentence each
    reasons: tuple[str, ...] = ()
    # How to mend it, None where nothing is to be done
    fix: Optional[str] = None


def export_verdict(packages: Sequence[Package], python: tuple[int, int] = sys.version_info[:2]) -> Verdict:
    """Whether checkpoints can be made, read and exported."""
    if python < EXPORT_PYTHON:
        return Verdict(
            "export",
            False,
            (f"Python {python[0]}.{python[1]} is too old: export needs {EXPORT_PYTHON[0]}.{EXPORT_PYTHON[1]}",),
            "export on another machine; the bundle runs on this one",
        )
    needed = [p for p in packages if p.extra in (None, "export")]
    missing = [p for p in needed if p.version is None]
    fix = 'pip install "motedge[export]"' if missing else None
    return Verdict("export", not missing, _reasons(needed), fix)


def run_cpu_verdict(packages: Sequence[Package], providers: Sequence[str], import_error: Optional[str]) -> Verdict:
    """Whether a bundle's policy runs here on the CPU, through onnxruntime."""
    needed = [p for p in packages if p.extra is None]
    missing = [p for p in needed if p.version is None]
    reasons = _reasons(needed)
    if missing:
        return Verdict("run-cpu", False, reasons, "pip install motedge")
    if CPU_PROVIDER not in providers:
        broken = import_error or f"its providers are {', '.join(providers) or 'none'}"
        return Verdict(
            "run-cpu",
            False,
            (*reasons, f"onnxruntime does not work: {broken}"),
            "pip install --force-reinstall onnxruntime",
        )
    return Verdict("run-cpu", True, reasons)


def run_gpu_verdict() -> Verdict:
    """Running on a GPU: no version of motedge can do it yet."""
    return Verdict("run-gpu", False, ("this version has no GPU backend: TensorRT comes later",))


def _reasons(packages: Sequence[Package]) -> tuple[str, ...]:
    return tuple(
        f"{p.name} is missing"
        if p.version is None
        else f"{p.name} {p.version} is outside the tested range {p.tested}: it may work"
        for p in packages
        if p.status != "ok"
    )
