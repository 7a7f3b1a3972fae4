"""How the CUDA provider is told to run, in its own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError, closest

CUDA_GRAPH_MODES = ("own", "outer", "off")
CONVOLUTION_SEARCHES = ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")


@dataclass(frozen=True)
class CudaSettings:
    """What a session of the CUDA provider is made with."""

    # "own": the library captures and replays a CUDA graph of each run by itself. "outer": a run may be captured by the
    # caller, as a part of the tick's graph. "off": neither, every run is launched kernel by kernel
    cuda_graph: str = "own"
    # Most bytes of the GPU's memory for this session, weights and workspace; None: what there is
    memory_limit_bytes: Optional[int] = None
    # How cuDNN's convolutions are chosen: by rule, by trying all of them, or not at all
    convolution_search: str = "HEURISTIC"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("CUDA graph mode", self.cuda_graph, CUDA_GRAPH_MODES),
            ("convolution search", self.convolution_search, CONVOLUTION_SEARCHES),
        ):
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}", fix=closest(value, known))
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise UsageError("the memory limit is wrong", expected="at least 1 byte", got=self.memory_limit_bytes)

    def provider_options(self, ordinal: int, stream_handle: int, graphs: bool) -> dict[str, str]:
        """Options of CUDAExecutionProvider (its cuda_execution_provider_info.cc), for a device and a stream of ours.

        Args:
            ordinal: of the device.
            stream_handle: everything runs on this stream, so that nothing needs to wait on the host.
            graphs: whether `enable_cuda_graph` is asked for. "outer" wants it too: it keeps the library from putting
                a callback that frees memory on the stream, which a replay would call a second time.
        """
        options = {
            "device_id": str(ordinal),
            "user_compute_stream": str(stream_handle),
            # The default, powers of two, holds up to twice of what is needed
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": self.convolution_search,
            "cudnn_conv_use_max_workspace": "1",
            # TF32 has 10 bits of mantissa: an fp32 graph is there to be exact, and fp16 graphs gain nothing by it
            "use_tf32": "0",
            "enable_cuda_graph": "1" if graphs else "0",
        }
        if self.memory_limit_bytes is not None:
            options["gpu_mem_limit"] = str(self.memory_limit_bytes)
        return options
