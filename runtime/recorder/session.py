"""What ticks of one recording have in common, and what must be the same for a replay to give the same bits."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

import motedge
from motedge.bundle import Bundle
from motedge.files import PathLike, sha256_file
from motedge.runtime.backends import choose_variant
from motedge.runtime.policy.loader import GRAPHS

# Bits follow from these; another machine or version may round another way
_DECIDING = ("engine", "variants", "recipe", "threads", "onnxruntime", "numpy", "machine")


def session_of(
    bundle_path: PathLike,
    *,
    engine: str,
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    threads: Optional[int] = None,
    machine: Optional[str] = None,
) -> dict[str, Any]:
    """The session of a policy that `load_policy` opens with these arguments.

    Args:
        bundle_path, engine, variant, recipe, threads: as `motedge.runtime.policy.load_policy` takes them.
        machine: the processor and GPU in words; None: `processor_words`.

    Raises:
        BundleError, UsageError: as `load_policy`.
    """
    root = Path(bundle_path)
    bundle = Bundle.open(root)
    chosen = {"variant": variant, "recipe": recipe}
    return {
        "bundle": root.resolve().name,
        "manifest_sha256": sha256_file(root / "manifest.json"),
        "model": f"{bundle.manifest.model.get('family')} {bundle.manifest.model.get('variant')}",
        "engine": engine,
        "recipe": recipe,
        "threads": threads,
        "variants": {graph: choose_variant(bundle, graph, backend=engine, **chosen) for graph in GRAPHS},
        "motedge": motedge.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": _onnxruntime(),
        "machine": processor_words() if machine is None else machine,
    }


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides about bits and is not the same, in words."""
    return [
        f"{name}: {recorded.get(name)} when recorded, {now.get(name)} now"
        for name in _DECIDING
        if recorded.get(name) != now.get(name)
    ]


def processor_words(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor and how many of its cores this process may use, which decides how sums are split."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # x86 has a name, Arm a part's number
    keys = ("model name", "CPU part")
    names = [line.partition(":")[2].strip() for key in keys for line in lines if line.split(":")[0].strip() == key]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ", ".join([platform.machine(), *names[:1], f"{cores} cores"])


def _onnxruntime() -> Optional[str]:
    try:
        import onnxruntime
    except ImportError:
        return None
    return str(onnxruntime.__version__)
