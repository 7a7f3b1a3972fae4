"""The table of TensorRT versions against the real bindings' API, and which row speaks for which release."""

from __future__ import annotations

import dataclasses

import pytest
from tensorrt_stub import read_api

from motedge.errors import HostError
from motedge.runtime.backends.tensorrt.runtime_api import CONFIG, METHOD
from motedge.runtime.backends.tensorrt.versions import FUSED, RTX, VERSIONS, TensorRtVersion, dialect_for, find_version

# Row -> file of the release that stands for it
RECORDED = {"8.6": "8.6", "10.3": "10.3", "10.13": "10.13", "10.16": "10.16", "11": "11.4", "RTX 1": "rtx-1.7"}
TYPES = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8", "int4": "INT4", "fp8": "FP8", "nvfp4": "FP4"}


@pytest.mark.parametrize("row", VERSIONS, ids=lambda row: row.name)
def test_row_is_what_the_bindings_have(row: TensorRtVersion) -> None:
    classes = read_api(RECORDED[row.name])["classes"]
    flags = classes["BuilderFlag"]["values"]
    creation = classes["NetworkDefinitionCreationFlag"]["values"]
    config = classes["IBuilderConfig"]["properties"]
    builder = classes["Builder"]["methods"]
    assert row.strip_plan == ("STRIP_PLAN" in flags)
    assert row.weight_streaming == ("WEIGHT_STREAMING" in flags)
    assert row.refit_individual == ("REFIT_INDIVIDUAL" in flags)
    assert row.editable_timing_cache == ("EDITABLE_TIMING_CACHE" in flags)
    assert row.precision_flags == ("FP16" in flags)
    assert row.include_refit == ("INCLUDE_REFIT" in classes.get("SerializationFlag", {"values": ()})["values"])
    assert row.progress_monitor == ("progress_monitor" in config) == ("IProgressMonitor" in classes)
    assert row.stream_plan == ("build_serialized_network_to_stream" in builder) == ("IStreamWriter" in classes)
    assert (row.strongly_typed == "absent") == ("STRONGLY_TYPED" not in creation)
    assert row.explicit_batch <= ("EXPLICIT_BATCH" in creation)
    assert row.device_memory in classes["ICudaEngine"]["properties"]
    assert row.version_compatible == ("VERSION_COMPATIBLE" in flags)
    assert row.ahead_of_time == ("ComputeCapability" in classes)
    assert row.takes(FUSED) == ("IAttention" in classes)
    # FP8 of 8.6 is an enum value without a layer that takes it
    known = {name for name, value in TYPES.items() if value in classes["DataType"]["values"]} - {"fp8"}
    assert set(row.types) - {"fp8"} == known


@pytest.mark.parametrize("row", [*VERSIONS, RTX], ids=lambda row: row.name)
def test_how_engines_are_run_is_what_the_bindings_have(row: TensorRtVersion) -> None:
    classes = read_api(RECORDED[row.name])["classes"]
    runtime, engine, context = row.runtime, classes["ICudaEngine"], classes["IExecutionContext"]
    without_memory = "create_execution_context_without_device_memory" in engine["methods"]
    strategies = classes.get("ExecutionContextAllocationStrategy", {"values": ()})["values"]
    assert (runtime.context == METHOD) <= without_memory
    assert (runtime.context != METHOD) == ("USER_MANAGED" in strategies)
    assert (runtime.context == CONFIG) <= ("create_runtime_config" in engine["methods"])
    assert runtime.sized_memory == ("set_device_memory" in context["methods"])
    assert runtime.sized_memory or context["properties"]["device_memory"] == "read-write"
    assert runtime.memory_for_shapes == ("update_device_memory_size_for_shapes" in context["methods"])
    by_profile = [name for name in engine["methods"] if name.startswith("get_device_memory_size_for_profile")]
    assert runtime.profile_memory in (by_profile or [None])
    # Rows speak for later releases too, but not for earlier ones
    assert runtime.engine_stat == ("get_engine_stat" in engine["methods"])
    assert runtime.just_in_time == ("IRuntimeCache" in classes)
    assert runtime.just_in_time == (
        "cuda_graph_strategy" in classes.get("IRuntimeConfig", {"properties": ()})["properties"]
    )
    assert runtime.capture_query == ("is_stream_capturable" in context["methods"])


@pytest.mark.parametrize("row", [*VERSIONS, RTX], ids=lambda row: row.name)
def test_what_the_runtime_uses_without_asking_is_everywhere(row: TensorRtVersion) -> None:
    classes = read_api(RECORDED[row.name])["classes"]
    used = {
        "ICudaEngine": (
            *("get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape", "get_tensor_location"),
            *("get_tensor_profile_shape", "get_tensor_format", "is_shape_inference_io"),
        ),
        "IExecutionContext": (
            *("set_input_shape", "infer_shapes", "get_tensor_shape", "set_tensor_address", "execute_async_v3"),
            "set_optimization_profile_async",
        ),
        "Runtime": ("deserialize_cuda_engine",),
    }
    for owner, names in used.items():
        assert [name for name in names if name not in classes[owner]["methods"]] == [], owner
    for name in ("num_io_tensors", "num_optimization_profiles", "num_aux_streams"):
        assert name in classes["ICudaEngine"]["properties"]
    assert classes["Runtime"]["properties"]["engine_host_code_allowed"] == "read-write"


def test_members_that_the_builder_must_not_use_everywhere() -> None:
    """What the issue names as removed is removed in the recorded API: the test above would miss an empty file."""
    old, new = (read_api(name)["classes"] for name in ("10.3", "11.4"))
    assert "device_memory_size" in old["ICudaEngine"]["properties"]
    assert "device_memory_size" not in new["ICudaEngine"]["properties"]
    assert "precision" in old["ILayer"]["properties"]
    assert "precision" not in new["ILayer"]["properties"]
    assert "EXPLICIT_BATCH" not in new["NetworkDefinitionCreationFlag"]["values"]
    assert len(old) > 150


def test_rtx_row_is_what_the_installed_module_has() -> None:
    api = pytest.importorskip("tensorrt_rtx")
    assert hasattr(api.IBuilderConfig, "set_compute_capability") == RTX.ahead_of_time
    assert hasattr(api.Builder, "build_serialized_network_to_stream") == RTX.stream_plan
    assert hasattr(api.ICudaEngine, RTX.device_memory)
    assert hasattr(api.BuilderFlag, "STRIP_PLAN") == RTX.strip_plan
    assert hasattr(api.SerializationFlag, "INCLUDE_REFIT") == RTX.include_refit
    assert not hasattr(api.BuilderFlag, "FP16")


@pytest.mark.parametrize(
    ("version", "row"),
    [
        ("10.3.0.30", "10.3"),
        ("10.10.10", "10.3"),
        ("10.13.3.9.post1", "10.13"),
        ("10.15.1.29", "10.13"),
        ("10.16.2.10", "10.16"),
        ("11.0.0.114", "11"),
        ("11.4.1", "11"),
        ("8.6.1", "8.6"),
    ],
)
def test_row_of_a_release(version: str, row: str) -> None:
    assert find_version(version).name == row


@pytest.mark.parametrize("version", ["12.0.0", "10.2.0", "9.3.0", "7.1", "", "unknown"])
def test_releases_without_a_row_are_refused(version: str) -> None:
    with pytest.raises(HostError, match="is not supported"):
        find_version(version)


def test_dialects() -> None:
    assert [dialect_for(v) for v in ("10.3.0", "10.13.3", "10.16.1", "11.4.0")] == [
        "primitive",
        "primitive",
        "fused",
        "fused",
    ]


def test_every_row_names_its_sources() -> None:
    for row in (*VERSIONS, RTX):
        assert row.sources["max_opset"], row.name
        assert all(source.strip() for source in row.sources.values())
    numbers = [row.number for row in VERSIONS]
    assert numbers == sorted(numbers)
    assert dataclasses.is_dataclass(RTX)
