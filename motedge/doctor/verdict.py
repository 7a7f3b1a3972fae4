"""From what a machine has to what it can do: export, run on the CPU, run on the GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from motedge.doctor.packages import Package

# torch and the onnx tools of the export extra have no release for older Pythons
EXPORT_PYTHON = (3, 10)
CPU_PROVIDER, GPU_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"


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


def run_gpu_verdict(
    gpu_missing: Optional[str],
    cuda: Mapping[str, Optional[str]],
    engines: Mapping[str, Optional[str]],
    providers: Sequence[str],
) -> Verdict:
    """Whether there is all that a tick on the GPU needs. CUDA itself is not tried: opening the GPU says more.

    Args:
        gpu_missing: Why there is no GPU, None where there is one.
        cuda: Library that talks to the driver -> version, None where it is not installed.
        engines: Engine library -> version, None where it is not installed.
        providers: Of onnxruntime.
    """
    reasons, fix = [], None
    if gpu_missing is not None:
        reasons.append(f"no GPU: {gpu_missing}")
    if not any(cuda.values()):
        reasons.append(f"none of {', '.join(cuda)} is installed")
        fix = 'pip install "motedge[cuda]"'
    if not any(engines.values()) and GPU_PROVIDER not in providers:
        reasons.append(f"no engine library: none of {', '.join(engines)}, and onnxruntime is a build without CUDA")
        fix = fix or "install TensorRT (on a Jetson it comes with JetPack), or onnxruntime-gpu"
    possible = not reasons
    if possible and cuda.get("cuda-bindings") is None:
        reasons.append("without cuda-bindings there are no CUDA graphs and no stream priorities")
        fix = 'pip install "motedge[cuda]"'
    return Verdict("run-gpu", possible, tuple(reasons), fix)


def _reasons(packages: Sequence[Package]) -> tuple[str, ...]:
    return tuple(
        f"{p.name} is missing"
        if p.version is None
        else f"{p.name} {p.version} is outside the tested range {p.tested}: it may work"
        for p in packages
        if p.status != "ok"
    )
