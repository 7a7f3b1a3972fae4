"""The gate before an engine is loaded: everything that can be known without deserialising it.

Engine libraries check late and tersely ("engine plan file is not compatible"), take a changed file for a valid one as
long as its header is right, and die for want of memory half-way. Each of that is checked before, in order of cost.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.errors import BundleError, HostError
from motedge.files import sha256_file
from motedge.runtime.engine_files.record import EngineFile, EngineFiles
from motedge.units import format_bytes

# TensorRT's plans are bound to the exact release. The others promise more, of which this takes major and minor
_EXACT_VERSION = ("tensorrt",)


@dataclass(frozen=True)
class LoadHost:
    """What a backend says of the machine that it wants to load an engine on."""

    # "tensorrt", "tensorrt-rtx" or "onnxruntime", and its version
    library: str
    version: str
    # Of the GPU, "8.7"; None without one
    compute_capability: Optional[str]
    # Bytes that an engine may take: of the GPU's memory, or of the machine's where they share it; None: not known
    free_memory_bytes: Optional[int]
    # "aarch64-linux"
    platform: str = ""
    # Of an engine's weights, how many bytes at most lie in that memory, if it was built to stream them; None: all
    weight_budget_bytes: Optional[int] = None

    def __post_init__(self) -> None:
        if not self.platform:
            object.__setattr__(self, "platform", this_platform())


def this_platform() -> str:
    """ "x86_64-linux", "aarch64-linux": processor and system, as build.json names them."""
    return f"{platform.machine().lower()}-{platform.system().lower()}"


def check_engine(
    files: EngineFiles,
    engine: EngineFile,
    host: LoadHost,
    *,
    trust_host_code: bool = False,
    check_content: bool = True,
    reserve_bytes: int = 0,
) -> Path:
    """Passes an engine to be deserialised, or says why not.

    Args:
        files: the folder that it lies in.
        engine: its entry.
        host: where it is to be loaded.
        trust_host_code: whether whoever runs this trusts the origin of a version-compatible plan: it holds a lean
            runtime, that is, code that runs on this CPU as soon as it is loaded.
        check_content: compare the sha256; sizes are compared in any case.
        reserve_bytes: memory that must stay free beside it: other engines, buffers.

    Returns:
        The file, safe to hand to the library.

    Raises:
        HostError: built by another library or version, for another GPU or platform; not trusted; too little memory.
        BundleError: missing, changed or half-copied.
    """
    _check_library(engine, host)
    _check_machine(engine, host)
    _check_trust(engine, trust_host_code)
    path = _check_file(files, engine.file, engine.bytes, engine.sha256 if check_content else None)
    for name, entry in engine.data_files.items():
        _check_file(files, name, int(entry["bytes"]), str(entry["sha256"]) if check_content else None)
    _check_memory(engine, host, reserve_bytes)
    return path


def _check_library(engine: EngineFile, host: LoadHost) -> None:
    if engine.builder != host.library:
        raise HostError(
            f"{engine.file} is an engine of {engine.builder}",
            expected=f"one of {host.library}",
            fix=f"open it with the backend {engine.builder}, or build for another target",
        )
    exact = engine.builder in _EXACT_VERSION and not engine.version_compatible
    built, here = _version(engine.builder_version), _version(host.version)
    width = 4 if exact else 2
    # A lean runtime inside the plan carries it one major further, never back
    forward = engine.version_compatible and built <= here and here[0] <= built[0] + 1
    if not forward and built[:width] != here[:width]:
        raise HostError(
            f"{engine.file} was built by another version of {engine.builder}",
            expected=engine.builder_version,
            got=host.version,
            why="a plan is only good for the version that wrote it" if exact else None,
            fix="build again on this machine, or install the version that built it",
        )


def _check_machine(engine: EngineFile, host: LoadHost) -> None:
    if engine.compute_capabilities and host.compute_capability not in engine.compute_capabilities:
        raise HostError(
            f"{engine.file} was built for another GPU",
            expected=f"compute capability {', '.join(engine.compute_capabilities)}",
            got=host.compute_capability or "no GPU",
            why="it holds machine code of the GPU that it was built for",
            fix="build for this device: motedge targets detect names it",
        )
    # TensorRT-RTX's engines hold no code for the CPU: one that was built on x86 runs on Arm as well
    if engine.builder == "tensorrt" and engine.platform != host.platform:
        raise HostError(
            f"{engine.file} was built on another platform",
            expected=engine.platform,
            got=host.platform,
            why="TensorRT's plans can't be built on one platform for another",
            fix="build it on this machine",
        )


def _check_trust(engine: EngineFile, trusted: bool) -> None:
    if engine.version_compatible and not trusted:
        raise HostError(
            f"{engine.file} is version-compatible and not marked as trusted",
            why="it holds host code, which would run with your rights as soon as the plan is loaded",
            fix="if you built it or know who did, trust it (motedge run --trust-engines, GpuOptions.trust_host_code); "
            "or build it without --version-compatible",
        )


def _check_file(files: EngineFiles, name: str, size: int, digest: Optional[str]) -> Path:
    path = files.inside(name)
    fix = "copy it again, or build again"
    if not path.is_file():
        raise BundleError(f"{name} is missing from {files.folder}", fix=fix)
    if path.stat().st_size != size:
        got = f"{path.stat().st_size} bytes"
        raise BundleError(f"{name} differs from what was built", expected=f"{size} bytes", got=got, fix=fix)
    if digest is not None and (found := sha256_file(path)) != digest:
        raise BundleError(
            f"{name} differs from what was built",
            expected=f"sha256 {digest}",
            got=f"sha256 {found}",
            why="it was changed or damaged since; a library may take it all the same",
            fix=fix,
        )
    return path


def _check_memory(engine: EngineFile, host: LoadHost, reserve: int) -> None:
    if host.free_memory_bytes is None:
        return
    weights = engine.total_bytes
    if host.weight_budget_bytes is not None and engine.settings.get("weight_streaming"):
        weights = min(weights, host.weight_budget_bytes)
    needed = weights + (engine.device_memory_bytes or 0) + reserve
    if needed > host.free_memory_bytes:
        parts = f"{format_bytes(weights)} of weights and kernels"
        if engine.device_memory_bytes:
            parts += f", {format_bytes(engine.device_memory_bytes)} of activations"
        if reserve:
            parts += f", {format_bytes(reserve)} for the rest"
        raise HostError(
            f"too little free memory to load {engine.file}",
            expected=f"{format_bytes(needed)}: {parts}",
            got=f"{format_bytes(host.free_memory_bytes)} free",
            fix="close other programs; or build a smaller recipe, or with --weight-streaming, and run it "
            "with --weight-budget-gb",
        )


def _version(text: str) -> tuple[int, ...]:
    """(10, 3, 0, 30) of "10.3.0.30"; what is no number ("post1", "dev") ends it."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else (0,)
