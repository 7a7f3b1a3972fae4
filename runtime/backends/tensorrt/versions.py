"""The versions of TensorRT that devices have, and in what they differ for whoever builds or runs engines.

Every field about the Python API is held against the real bindings (tests/data/tensorrt_api/, from the wheels on
PyPI by scripts/extract_tensorrt_api.py). What no signature shows comes from NVIDIA's documentation, named in `sources`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.runtime_api import (
    RUNTIME_8_6,
    RUNTIME_10_3,
    RUNTIME_10_16,
    RUNTIME_RTX,
    RuntimeApi,
)

FUSED, PRIMITIVE = "fused", "primitive"
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class TensorRtVersion:
    """One row: a release and those after it, up to the next row of the same major number."""

    # "10.3": the first release that the row speaks for
    name: str
    # Dialects of graphs that it takes, the preferred one first
    dialects: tuple[str, ...]
    # Newest opset of ai.onnx that its parser knows
    max_opset: int
    # Types that weights and activations may have, as this project names them
    types: tuple[str, ...]
    # Where a device has it
    where: str
    # How NetworkDefinitionCreationFlag.STRONGLY_TYPED stands: "set" (networks are weakly typed without it), "ignored"
    # (all networks are strongly typed), "absent" (there are weakly typed networks only)
    strongly_typed: str
    # Whether NetworkDefinitionCreationFlag.EXPLICIT_BATCH must be set: networks had an implicit batch before 10
    explicit_batch: bool
    # Attribute of ICudaEngine with the bytes of activation memory
    device_memory: str
    # BuilderFlag.WEIGHT_STREAMING and ICudaEngine.weight_streaming_budget_v2
    weight_streaming: bool
    # BuilderFlag.STRIP_PLAN: a plan without its refittable weights
    strip_plan: bool
    # BuilderFlag.REFIT_INDIVIDUAL: weights are marked one by one
    refit_individual: bool
    # IBuilderConfig.progress_monitor
    progress_monitor: bool
    # BuilderFlag.EDITABLE_TIMING_CACHE
    editable_timing_cache: bool
    # Builder.build_serialized_network_to_stream: the plan goes to a file without being held in memory as a whole
    stream_plan: bool
    # SerializationFlag.INCLUDE_REFIT: without it, a plan that is serialised again can't be refitted once more
    include_refit: bool
    # BuilderFlags for types of a weakly typed network, such as FP16
    precision_flags: bool
    # Key of the tensors' list in the engine inspector's JSON
    inspector_tensors: str
    # Whether VERSION_COMPATIBLE works: it needs the lean runtime, which TensorRT-RTX does not bring
    version_compatible: bool
    # Whether IBuilderConfig takes compute capabilities, and builds for GPUs that are not there
    ahead_of_time: bool
    # How engines are run
    runtime: RuntimeApi
    # Facts that no signature shows -> where they are said
    sources: Mapping[str, str]
    # Only to be tested with: nothing is built for a device by it
    test_only: bool = False

    @property
    def number(self) -> tuple[int, ...]:
        """(10, 3) for "10.3"."""
        return parse_version(self.name)

    def takes(self, dialect: str) -> bool:
        """Whether its parser takes graphs of this dialect."""
        return dialect in self.dialects


_MIGRATION = "docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x-python-api-removed.html"
_MATRIX = "docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix-10/10.14.1.html"
_FUSED_SINCE = "onnx-tensorrt changelog: Attention since 10.14, RotaryEmbedding and RMSNormalization since 10.15"

VERSIONS: tuple[TensorRtVersion, ...] = (
    TensorRtVersion(
        name="8.6",
        dialects=(PRIMITIVE,),
        max_opset=17,
        types=("fp32", "fp16", "int8"),
        where="no device of the catalogue; whole wheels exist, so that code can be tried on a server's GPU",
        strongly_typed="absent",
        explicit_batch=True,
        device_memory="device_memory_size",
        weight_streaming=False,
        strip_plan=False,
        refit_individual=False,
        progress_monitor=False,
        editable_timing_cache=False,
        stream_plan=False,
        include_refit=False,
        precision_flags=True,
        inspector_tensors="Bindings",
        version_compatible=True,
        ahead_of_time=False,
        runtime=RUNTIME_8_6,
        sources={"max_opset": "onnx-tensorrt 8.6-GA docs/operators.md", "types": "TensorRT 8.6 support matrix"},
        test_only=True,
    ),
    TensorRtVersion(
        name="10.3",
        dialects=(PRIMITIVE,),
        max_opset=20,
        types=("fp32", "fp16", "bf16", "int8", "int4", "fp8"),
        where="JetPack 6.2 (10.3.0.30), DriveOS 7.0.3 (10.10.10)",
        strongly_typed="set",
        explicit_batch=False,
        device_memory="device_memory_size_v2",
        weight_streaming=True,
        strip_plan=True,
        refit_individual=True,
        progress_monitor=True,
        editable_timing_cache=False,
        stream_plan=False,
        include_refit=False,
        precision_flags=True,
        inspector_tensors="Bindings",
        version_compatible=True,
        ahead_of_time=False,
        runtime=RUNTIME_10_3,
        sources={
            "max_opset": "onnx-tensorrt docs/operators.md of 10.0 to 10.3: opset 9 to 20",
            "dialects": _FUSED_SINCE,
            "types": _MATRIX,
        },
    ),
    TensorRtVersion(
        name="10.13",
        dialects=(PRIMITIVE,),
        max_opset=24,
        types=("fp32", "fp16", "bf16", "int8", "int4", "fp8", "nvfp4"),
        where="JetPack 7.0 and 7.1",
        strongly_typed="set",
        explicit_batch=False,
        device_memory="device_memory_size_v2",
        weight_streaming=True,
        strip_plan=True,
        refit_individual=True,
        progress_monitor=True,
        editable_timing_cache=True,
        stream_plan=True,
        include_refit=False,
        precision_flags=True,
        inspector_tensors="Bindings",
        version_compatible=True,
        ahead_of_time=False,
        runtime=RUNTIME_10_3,
        sources={
            "max_opset": "onnx-tensorrt docs/operators.md of 10.13: opset 9 to 24",
            "dialects": _FUSED_SINCE,
            "types": f"{_MATRIX}; FP4 since 10.8 (release notes)",
        },
    ),
    TensorRtVersion(
        name="10.16",
        dialects=(FUSED, PRIMITIVE),
        max_opset=24,
        types=("fp32", "fp16", "bf16", "int8", "int4", "fp8", "nvfp4"),
        where="JetPack 7.2 and 7.2.1 (10.16.2.10)",
        strongly_typed="set",
        explicit_batch=False,
        device_memory="device_memory_size_v2",
        weight_streaming=True,
        strip_plan=True,
        refit_individual=True,
        progress_monitor=True,
        editable_timing_cache=True,
        stream_plan=True,
        include_refit=True,
        precision_flags=True,
        inspector_tensors="Bindings",
        version_compatible=True,
        ahead_of_time=False,
        runtime=RUNTIME_10_16,
        sources={
            "max_opset": "onnx-tensorrt docs/operators.md of 10.15: opset 9 to 24",
            "dialects": "onnx-tensorrt docs/operators.md of 10.15 (Attention without past_key and past_value)",
            "types": _MATRIX,
        },
    ),
    TensorRtVersion(
        name="11",
        dialects=(FUSED, PRIMITIVE),
        max_opset=25,
        types=("fp32", "fp16", "bf16", "int8", "int4", "fp8", "nvfp4"),
        where="JetPack 7.2.2 on AGX Orin and Thor (11.4.1, SBSA package), DriveOS 7.2, servers",
        strongly_typed="ignored",
        explicit_batch=False,
        device_memory="device_memory_size_v2",
        weight_streaming=True,
        strip_plan=True,
        refit_individual=True,
        progress_monitor=True,
        editable_timing_cache=True,
        stream_plan=True,
        include_refit=True,
        precision_flags=False,
        inspector_tensors="I/O Tensors",
        version_compatible=True,
        ahead_of_time=False,
        runtime=RUNTIME_10_16,
        sources={
            "max_opset": "TensorRT 11.4.1 documentation, ONNX operator support",
            "strongly_typed": _MIGRATION,
            "precision_flags": _MIGRATION,
            "inspector_tensors": _MIGRATION.replace("python-api-removed", "engine-inspector"),
        },
    ),
)


# TensorRT-RTX has TensorRT 11's API under another module name
RTX = dataclasses.replace(
    VERSIONS[-1],
    name="RTX 1",
    where="desktop and workstation GPUs, DGX Spark; pip install tensorrt-rtx-cu13",
    version_compatible=False,
    ahead_of_time=True,
    runtime=RUNTIME_RTX,
    sources={
        "max_opset": "TensorRT-RTX 1.7 takes the opset-23 graphs of this project's tests",
        "version_compatible": "1.7.1 looks for libnvinfer_lean.so.1, which its wheels do not hold",
        "ahead_of_time": "IBuilderConfig.set_compute_capability of 1.7.1",
    },
)
# What TensorRT-RTX 1.7.1's ComputeCapability names
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def find_version(version: str) -> TensorRtVersion:
    """The row that speaks for a release: the newest that is not above it and has the same major number.

    Args:
        version: as the library or a target's software row says it, "10.3.0.30".

    Raises:
        HostError: not a version, or one that no row speaks for.
    """
    number: Optional[tuple[int, ...]] = parse_version(version)
    rows = [row for row in VERSIONS if number and row.number <= number and row.number[0] == number[0]]
    if not rows:
        known = ", ".join(row.name for row in VERSIONS if not row.test_only)
        raise HostError(
            f"TensorRT {version} is not supported",
            expected=f"10.3 or later, of the majors 10 and 11 (tested: {known})",
            got=version,
            why="the builder's API differs between versions, and this one was never compared",
            fix="install the TensorRT that the target's JetPack brings: motedge targets show TARGET",
        )
    return rows[-1]


def dialect_for(version: str) -> str:
    """ "fused" or "primitive": the dialect of graphs that a release takes best; HostError as in `find_version`."""
    return find_version(version).dialects[0]


def parse_version(version: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) for "10.13.3.9"; what follows the numbers ("post1") is left out; () where there are none."""
    found = _NUMBERS.match(version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
