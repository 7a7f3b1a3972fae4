"""Which of motedge's packages are there, and in which versions."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Optional

from motedge.doctor.requirements import installed_version, requirements

# The extras that a user meets; "test" is for motedge's own developers
USER_EXTRAS = ("export", "cuda", "images", "video", "parquet", "plot", "client", "serve", "drive")
# Import names of NVIDIA's engine libraries, and the distributions that carry them
ENGINE_LIBRARIES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
# What talks to the GPU's driver: one is enough; graphs and priorities of streams need cuda-bindings
CUDA_LIBRARIES = ("cuda-bindings", "pycuda")


@dataclass(frozen=True)
class Package:
    """One package that motedge uses, as found here."""

    name: str
    # None: not installed
    version: Optional[str]
    # Versions that the test suite ran with, "" for any
    tested: str
    # The extra that brings it, None for what every installation has
    extra: Optional[str]
    in_range: bool

    @property
    def status(self) -> str:
        """'missing', 'untested version' or 'ok'."""
        if self.version is None:
            return "missing"
        return "ok" if self.in_range else "untested version"


def packages() -> list[Package]:
    """Every package that this Python should have: the dependencies, then those of the user's extras."""
    found = []
    for requirement in requirements():
        if not requirement.applies or requirement.extra not in (None, *USER_EXTRAS):
            continue
        version = installed_version(requirement.name)
        in_range = version is not None and requirement.accepts(version)
        found.append(Package(requirement.name, version, requirement.range, requirement.extra, in_range))
    return found


def engine_libraries() -> dict[str, Optional[str]]:
    """Version of each TensorRT flavour that could be imported, None without one. Imports nothing, starts no CUDA."""
    found: dict[str, Optional[str]] = {}
    for module, distributions in ENGINE_LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            found[module] = None
            continue
        versions = [v for v in map(installed_version, distributions) if v is not None]
        # JetPack's package of the system may carry no metadata
        found[module] = versions[0] if versions else "unknown version"
    return found


def cuda_libraries() -> dict[str, Optional[str]]:
    """Version of each library that talks to the GPU's driver, None where it is not installed. Starts no CUDA."""
    return {name: installed_version(name) for name in CUDA_LIBRARIES}


def onnxruntime_providers() -> tuple[list[str], Optional[str]]:
    """The execution providers that this onnxruntime was built with, and why there are none, if so."""
    try:
        import onnxruntime
    except ImportError as error:
        return [], str(error)
    return list(onnxruntime.get_available_providers()), None
