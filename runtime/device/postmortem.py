"""After a step with NaN or infinity: where they came from. Costs nothing while all is well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from motedge.runtime.cuda import Stream
from motedge.runtime.device.buffers import TickBuffers
from motedge.runtime.device.prompts import DevicePrompt
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.step_solver import COND_NOT_FINITE
from motedge.runtime.engine import FloatArray
from motedge.runtime.finite import NonFiniteError, check_finite
from motedge.runtime.request import GenInputs

_WHY = "damaged weights, inputs far outside the trained range, or an overflow of the variant's dtype"
_FIX = "motedge verify BUNDLE; if that passes, look at the inputs, or take a variant of a wider dtype"


def raise_for(
    findings: Sequence[int],
    buffers: TickBuffers,
    prompts: Sequence[DevicePrompt],
    staging: Staging,
    stream: Stream,
    inputs: GenInputs,
) -> None:
    """Raises NonFiniteError unless every step's velocities were finite; names the graph, the step and the branch.

    Velocities are not finite either where the clean frames or the prompts' K and V were not: those are looked at first.
    """
    wrong = next((k for k, bits in enumerate(findings) if bits), None)
    if wrong is None:
        return
    if wrong == 0:
        clean_vision(buffers, staging, stream, inputs)
        for name, prompt in zip(("conditional", "unconditional"), prompts):
            kv = np.empty(prompt.nbytes, np.uint8)
            staging.download(kv, prompt.memory.pointer, stream)
            _check_und_kv(kv, buffers.dtype, f"graph {prompt.graph!r} returned NaN or infinity, {name} prompt")
    branch = "conditional" if findings[wrong] & COND_NOT_FINITE else "unconditional"
    raise NonFiniteError(
        f"graph {buffers.graph!r} returned NaN or infinity at step {wrong}, {branch} branch",
        expected="finite numbers",
        why=_WHY,
        fix=_FIX,
    )


def clean_vision(buffers: TickBuffers, staging: Staging, stream: Stream, inputs: GenInputs) -> FloatArray:
    """The clean frames as they lie on the device, fp32 [C, T, h, w], zero elsewhere.

    Raises:
        NonFiniteError: the encoder returned NaN or infinity.
    """
    clean = np.empty(buffers.layout.vision_shape, np.float32)
    staging.download(clean, buffers.pointer("clean"), stream)
    check_finite(clean[:, inputs.vision_noisy == 0], "graph 'vae_encoder' returned NaN or infinity")
    clean[:, inputs.vision_noisy != 0] = 0
    return clean


def _check_und_kv(raw: NDArray[np.uint8], dtype: str, what: str) -> None:
    if dtype == "bf16":
        # The upper half of an fp32
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view(np.float16 if dtype == "fp16" else np.float32)
    check_finite(values, what)
