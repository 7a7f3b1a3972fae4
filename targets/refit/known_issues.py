"""Releases of TensorRT whose refittable engines are known to compute something else."""

from __future__ import annotations

from typing import Optional

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.versions import parse_version
from motedge.targets.builders.trt.library import TENSORRT, Library

# docs.nvidia.com/deeplearning/tensorrt/11.3.0/inference-library/refitting-engines.html ("Important"); the same page of
# 11.4.0 no longer says it
_BIAS_DROPPED = (11, 3)


def refit_issue(name: str, version: str) -> Optional[str]:
    """What is wrong with refittable engines (BuilderFlag.REFIT) of a release; None where nothing is known.

    Args:
        name: of the library, "tensorrt" or "tensorrt-rtx", which counts its own versions.
        version: "11.3.0.14".
    """
    if name == TENSORRT and parse_version(version)[:2] == _BIAS_DROPPED:
        return (
            "its refittable engines can treat the bias of a matrix product as zero, refitted or not, and do not offer "
            "it to be refitted (NVIDIA, known issue of 11.3)"
        )
    return None


def require_sound_refit(library: Library) -> None:
    """HostError where this release's refittable engines are known to be wrong."""
    issue = refit_issue(library.name, library.version)
    if issue is not None:
        raise HostError(
            f"{library.name} {library.version} does not refit reliably",
            expected="another release, 11.4 or later for instance",
            got=library.version,
            why=issue,
            fix="motedge build BUNDLE --target TARGET without --refittable, which is not affected",
        )
