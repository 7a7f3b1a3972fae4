"""The conditions of a measurement on a GPU: card, driver, libraries, beside those of `conditions.py`."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

from conditions import collect_conditions

from motedge.doctor.requirements import installed_version

# What can change a figure on a GPU; what is not installed is recorded as such
GPU_PACKAGES = (
    "onnxruntime-gpu",
    "cuda-bindings",
    "pycuda",
    "triton",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "tensorrt",
)
# A machine to which files were copied has no history, or not theirs: the commit is told, as
# `git describe --always --abbrev=40 --dirty` writes it
COMMIT_VARIABLE, DIRTY = "MOTEDGE_COMMIT", "-dirty"
_QUERIES = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.memory", "power.limit", "clocks.sm")


def collect_gpu_conditions() -> dict[str, Any]:
    """As `collect_conditions`, with the first GPU's facts as nvidia-smi tells them. JSON-ready."""
    found = collect_conditions()
    gpu = query_gpu()
    versions = {**found["versions"], **{name: installed_version(name) for name in GPU_PACKAGES}}
    if COMMIT_VARIABLE in os.environ:
        told = os.environ[COMMIT_VARIABLE]
        found |= {"commit": told.removesuffix(DIRTY), "uncommitted_changes": told.endswith(DIRTY)}
    return {**found, "device": gpu.get("name", "no GPU"), "gpu": gpu, "versions": versions}


def query_gpu() -> dict[str, str]:
    """Name, driver, memory and clocks of the first GPU; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERIES)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in (done.stdout.splitlines() or [""])[0].split(",")]
    return dict(zip(_QUERIES, values)) if len(values) == len(_QUERIES) else {}


def gpu_id(name: str) -> str:
    """A card's name as part of a file name: "NVIDIA H100 80GB HBM3" -> "h100"."""
    model = re.search(r"\b[A-Z]{1,3}\d{2,4}\w*", name)
    return (model.group() if model else re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")).lower()
