"""In what TensorRT's versions differ for somebody who runs engines; one value a group of releases.

What is the same in every version that this project knows is not listed: names of tensors, set_input_shape,
set_tensor_address, execute_async_v3, infer_shapes, profiles, auxiliary streams. Each field is held against the real
bindings by tests/unit/runtime/tensorrt/test_versions.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

# Ways to make a context whose activation memory comes from the caller
METHOD, STRATEGY, CONFIG = "method", "strategy", "config"


@dataclass(frozen=True)
class RuntimeApi:
    """What ICudaEngine, IExecutionContext and Runtime have."""

    # METHOD: ICudaEngine.create_execution_context_without_device_memory; STRATEGY: create_execution_context with
    # ExecutionContextAllocationStrategy.USER_MANAGED; CONFIG: that strategy in an IRuntimeConfig
    context: str
    # IExecutionContext.set_device_memory(address, bytes); without it, the property device_memory takes an address
    sized_memory: bool
    # IExecutionContext.update_device_memory_size_for_shapes: activation memory of the shapes at hand
    memory_for_shapes: bool
    # Method of ICudaEngine with the activation memory of one profile; None: only that of the largest is known
    profile_memory: Optional[str]
    # ICudaEngine.get_engine_stat: bytes of weights
    engine_stat: bool
    # Kernels are compiled on the device, when a context first runs: IRuntimeConfig has a cache of them, and says when
    just_in_time: bool
    # IExecutionContext.is_stream_capturable
    capture_query: bool


RUNTIME_8_6 = RuntimeApi(
    context=METHOD,
    sized_memory=False,
    memory_for_shapes=False,
    profile_memory=None,
    engine_stat=False,
    just_in_time=False,
    capture_query=False,
)
RUNTIME_10_3 = RuntimeApi(
    context=STRATEGY,
    sized_memory=True,
    memory_for_shapes=True,
    profile_memory="get_device_memory_size_for_profile_v2",
    engine_stat=False,
    just_in_time=False,
    capture_query=False,
)
RUNTIME_10_16 = dataclasses.replace(RUNTIME_10_3, engine_stat=True)
RUNTIME_RTX = dataclasses.replace(RUNTIME_10_16, context=CONFIG, just_in_time=True, capture_query=True)
