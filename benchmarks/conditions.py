"""The conditions of a measurement: machine, versions, commit, load. Every benchmark's JSON starts with them."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from motedge.doctor.host import examine_host, read_text
from motedge.doctor.requirements import installed_version
from motedge.errors import UsageError

SCHEMA = "motedge.benchmark/v1"
# Packages that can change a figure; what is not installed is recorded as such
PACKAGES = ("motedge", "numpy", "onnxruntime", "torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")
# Environment variables that change how many threads a library starts, and how they wait
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_ROOT = Path(__file__).resolve().parent.parent


def collect_conditions(threads: int | None = None) -> dict[str, Any]:
    """What a reader must know to repeat a measurement. Call it before the work, so that the load is not the work's own.

    Args:
        threads: threads that each library was told to use; None where the libraries choose.

    Returns:
        JSON-ready; sizes in GB (1e9 bytes).
    """
    host = examine_host(_ROOT)
    memory = host.usable_memory_bytes
    return {
        "device": "CPU",
        "cpu": host.cpu,
        "cpu_flags": list(host.cpu_flags),
        "cores": host.cores,
        "usable_cores": host.usable_cores,
        "threads": threads,
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "system": host.system,
        "architecture": host.architecture,
        "python": platform.python_version(),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        **_commit(),
        "load_average": load_average(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def load_average() -> list[float] | None:
    """Runnable processes over the last 1, 5 and 15 minutes; None where the system does not count them."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def machine_cpu_s() -> float | None:
    """CPU time of all processes since the machine started, stolen time included, in s; None where it is not told.

    Linux counts it in ticks of 10 ms.
    """
    first = (read_text(Path("/proc/stat")) or "").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def usable_threads(asked: int | None) -> int:
    """Threads for both sides of a comparison: as asked, or one for each core that this process may use.

    Raises:
        UsageError: more threads than cores, which measures the scheduler, or fewer than one.
    """
    cores = examine_host(_ROOT).usable_cores
    if asked is not None and not 1 <= asked <= cores:
        raise UsageError("the number of threads does not fit this machine", expected=f"1 to {cores}", got=asked)
    return cores if asked is None else asked


def _commit() -> dict[str, Any]:
    """The commit that is measured, and whether files differ from it; None outside a git work tree."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {"commit": commit, "uncommitted_changes": None if commit is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
