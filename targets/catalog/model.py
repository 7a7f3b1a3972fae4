"""What the catalogue says of a device: figures with their source and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from motedge.errors import UsageError, closest

# measured: by this project, on the hardware; vendor: the maker says so; derived: arithmetic, given in the source, from
# such; community: others measured it; unverified: said somewhere, or of hardware not sold yet; unknown: no value
MEASURED, VENDOR, DERIVED, COMMUNITY, UNVERIFIED, UNKNOWN = MARKS = (
    "measured",
    "vendor",
    "derived",
    "community",
    "unverified",
    "unknown",
)
KINDS = ("jetson", "drive", "spark", "rtx", "datacenter", "cpu")
# Classes of devices that reach a like share of their nominal speed
ARCHITECTURES = ("orin", "thor", "ada", "blackwell", "hopper", "cpu")
ENGINES = ("tensorrt", "tensorrt-rtx", "onnxruntime")
# Types of multiplications that a device can have a rate for
MATH_TYPES = ("fp32", "fp16", "bf16", "int8", "fp8", "nvfp4")


@dataclass(frozen=True)
class Figure:
    """One number of a device.

    Raises:
        UsageError: a mark that is none, no source, a value that is marked unknown or one that does not exist.
    """

    # None where nothing is known, or where there is nothing to know: a CPU has no compute capability
    value: Optional[float]
    # One of MARKS
    mark: str
    # A sentence: which document says it, or the arithmetic; for an unknown value, where one looked
    source: str

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise UsageError(f"a device's figure is marked {self.mark!r}", fix=closest(self.mark, MARKS))
        if not self.source.strip():
            raise UsageError("a device's figure has no source", got=f"value {self.value}, mark {self.mark}")
        if self.value is not None and (self.mark == UNKNOWN or not 0 <= self.value < float("inf")):
            raise UsageError(
                "a device's figure does not fit",
                expected="a finite number that is not negative, and none where the mark is unknown",
                got=f"{self.value}, marked {self.mark}",
            )

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.value is not None


@dataclass(frozen=True)
class PowerMode:
    """One setting of `nvpmodel`, or of a card's power limit."""

    # As `nvpmodel -q` prints it: "MAXN_SUPER", "15W"
    name: str
    # What the mode is budgeted for
    power_w: Figure
    # Peak dense throughput, and memory bandwidth, as a share of what the device's own figures say; None: not looked up
    compute_scale: Optional[Figure] = None
    bandwidth_scale: Optional[Figure] = None
    # Highest clock of the GPU
    gpu_clock_mhz: Optional[Figure] = None
    note: str = ""


@dataclass(frozen=True)
class SoftwareRow:
    """One release of a device's system software; fields are None where no source was found."""

    # "JetPack 6.2"
    release: str
    # Release of Jetson Linux, "36.4.3"
    l4t: Optional[str]
    cuda: Optional[str]
    # Version of the TensorRT that comes with it, "10.3.0.30"
    tensorrt: Optional[str]
    # Version of its Python, "3.10"
    python: Optional[str]
    mark: str
    source: str
    # Other TensorRT versions that can be installed on it
    accepts: tuple[str, ...] = ()
    # Version of TensorRT for RTX, which is installed by pip and not by a system release
    tensorrt_rtx: Optional[str] = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise UsageError(f"software {self.release!r} is marked {self.mark!r}", fix=closest(self.mark, MARKS))
        if not self.source.strip():
            raise UsageError(f"software {self.release!r} has no source")


@dataclass(frozen=True)
class Signs:
    """By what a machine shows that it is this device."""

    # Part numbers of the module, in the device tree's `compatible`: "p3767-0003"
    parts: tuple[str, ...] = ()
    # Words of the device tree's `model`; carrier boards get it wrong more often than part numbers
    models: tuple[str, ...] = ()
    # Whole names as nvidia-smi prints them, without "NVIDIA" in front
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One device. Rates are dense: makers' headline figures are often for 2:4-sparse weights, and twice as high."""

    # File name without .toml: "jetson-agx-thor-t5000"
    id: str
    # As its maker writes it
    name: str
    # One of KINDS
    kind: str
    # One of ARCHITECTURES
    architecture: str
    # Whether CPU and GPU share one memory: then the system, the camera's buffers and the build take from it too
    unified_memory: bool
    # CUDA compute capability, 8.7 and so on; no value: no CUDA GPU
    capability: Figure
    # All of it, in 1e9 bytes: a module of "64 GB" has 64 GiB = 68.7
    memory_gb: Figure
    # What a system without a desktop leaves for a program
    available_gb: Figure
    # Memory bandwidth in GB/s
    bandwidth_gbps: Figure
    # Peak multiply-add rate by type, dense, accumulated in fp32 (int32); a type without a fast path is absent
    dense_tflops: Mapping[str, Figure] = field(hash=False)
    power_modes: tuple[PowerMode, ...]
    # Newest last
    software: tuple[SoftwareRow, ...]
    # What builds for it by default, one of ENGINES
    engine: str
    # What one should know before trusting the figures
    note: str = ""
    signs: Signs = Signs()

    @property
    def compute_capability(self) -> Optional[float]:
        """8.7 and so on; None without a CUDA GPU."""
        return self.capability.value
