"""The weights of one graph in a session of onnxruntime's CUDA provider."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Contract
from motedge.errors import ContractError, MotedgeError
from motedge.runtime.backends.onnxruntime_cuda.context import NO_GRAPH, OnnxRuntimeCudaContext
from motedge.runtime.backends.onnxruntime_cuda.placement import RECORD_KEY, Placement, read_placement
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider, load_library, missing_provider
from motedge.runtime.backends.onnxruntime_cuda.settings import CudaSettings
from motedge.runtime.backends.onnxruntime_session import (
    check_tensors,
    library_errors,
    load_error,
    says_no_memory,
    session_options,
)
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError

_log = logging.getLogger(__name__)
# The library can't free a captured graph before its session, so that their number must end somewhere
OWN_GRAPHS_AT_MOST = 64
# Room that cuBLAS and cuDNN need for their own kernels and workspace when they start, rounded up
_STARTING_BYTES = 512 << 20
# What it says of graphs that it can't capture
_NO_CAPTURE = "graph capture feature"


class OnnxRuntimeCudaEngine:
    """See `motedge.runtime.device_engine.DeviceEngine`.

    All calls belong to one thread: the library keeps its captured graphs by thread. A CUDA graph that was captured
    around a run ("outer") must not be launched any more once this is closed: the workspace was the session's.
    """

    def __init__(
        self,
        model: Path,
        contract: Contract,
        dtype: str,
        cuda: Cuda,
        settings: Optional[CudaSettings] = None,
        *,
        stream: Optional[Stream] = None,
        threads: Optional[int] = None,
        provider: Optional[Provider] = None,
    ) -> None:
        """Loads `model`, whose files have been checked already.

        Args:
            model: the .onnx file.
            contract: of the graph.
            dtype: "fp32", "fp16" or "bf16".
            cuda: the device.
            settings: None: the defaults.
            stream: everything runs on it; None: one of its own. On the stream on which the engine is mostly enqueued
                no events are needed to keep the order.
            threads: CPU threads, for what little the CPU does.
            provider: for tests.

        Raises:
            BundleError: not an ONNX model, or its tensors differ from the contract.
            HostError: the library or its CUDA provider is missing or too old for the graph, or left work to the CPU.
            OutOfDeviceMemoryError: the weights don't fit.
        """
        self.provider = provider or Provider()
        self.settings, self.contract, self.cuda, self._dtype = settings or CudaSettings(), contract, cuda, dtype
        # Where it came from, by which others tell the variant
        self.model = model
        self.ordinal = cuda.facts.ordinal
        self.module = load_library(self.provider)
        self.errors = library_errors(self.module)
        # Why the mode that was asked for is not the one in force; None where it is
        self.fallback_reason: Optional[str] = None
        self.cuda_graph = self.settings.cuda_graph
        self.session: Any = None
        self._contexts: weakref.WeakSet[OnnxRuntimeCudaContext] = weakref.WeakSet()
        self._graph_ids = 0
        with cuda.current():
            self.stream = stream or cuda.stream()
            before, _ = cuda.memory_info()
            try:
                self.session = self._load(model, threads)
                self.placement: Placement = self._check(model)
            except BaseException:
                self.session = None
                raise
            self._weight_bytes = max(before - cuda.memory_info()[0], 0)

    @property
    def dtype(self) -> str:
        """ "fp32", "fp16" or "bf16"."""
        return self._dtype

    @property
    def weight_bytes(self) -> int:
        """What the device had less of after loading; the work of other programs in that time counts too."""
        return self._weight_bytes

    @property
    def capture_refusal(self) -> Optional[str]:
        """Why runs can't be captured in a CUDA graph of the caller's; None where they can."""
        if self.cuda_graph == "outer":
            return None
        if self.fallback_reason:
            return self.fallback_reason
        if self.cuda_graph == "own":
            return "onnxruntime captures and replays a CUDA graph of its own, which can't lie inside another"
        return 'onnxruntime runs without CUDA graphs, as asked for (cuda_graph="off")'

    def context(self, dims: Mapping[str, int]) -> OnnxRuntimeCudaContext:
        """See DeviceEngine."""
        if self.session is None:
            raise ContractError(f"the engine of graph {self.contract.graph!r} has been closed")
        context = OnnxRuntimeCudaContext(self, dims)
        self._contexts.add(context)
        return context

    def close(self) -> None:
        """See DeviceEngine. Contexts that are still open are closed first: a binding would keep the session."""
        for context in list(self._contexts):
            context.close()
        self.session = None

    def take_graph_id(self) -> int:
        """A number for a graph that the library is to capture by itself; NO_GRAPH once there are too many."""
        self._graph_ids += 1
        if self._graph_ids <= OWN_GRAPHS_AT_MOST:
            # 0 is what runs without a number get
            return self._graph_ids
        if self._graph_ids == OWN_GRAPHS_AT_MOST + 1:
            _log.warning(
                "graph %s: %d CUDA graphs have been captured, for as many sets of shapes and addresses, and can't be "
                "freed one by one; further ones run kernel by kernel",
                self.contract.graph,
                OWN_GRAPHS_AT_MOST,
            )
        return NO_GRAPH

    def _load(self, model: Path, threads: Optional[int]) -> Any:
        graphs = self.cuda_graph != "off"
        try:
            return self._session(model, threads, graphs)
        except self.errors as error:
            if not graphs or _NO_CAPTURE not in str(error):
                raise self._load_error(model, error) from error
            self.fallback_reason = f"onnxruntime can't capture this graph: {error}"
        _log.warning("graph %s runs without a CUDA graph: %s", self.contract.graph, self.fallback_reason)
        self.cuda_graph = "off"
        try:
            return self._session(model, threads, False)
        except self.errors as error:
            raise self._load_error(model, error) from error

    def _session(self, model: Path, threads: Optional[int], graphs: bool) -> Any:
        settings = session_options(self.module, threads)
        # With a pattern the second run allocates otherwise than the first, and would do so while it is captured
        settings.enable_mem_pattern = False
        settings.add_session_config_entry(RECORD_KEY, "1")
        options = self.settings.provider_options(self.ordinal, self.stream.handle, graphs)
        providers = [(self.provider.name, options if self.provider.device == "cuda" else {})]
        # Otherwise it prints to stdout and tries again on the CPU
        return self.module.InferenceSession(str(model), settings, providers=providers, enable_fallback=0)

    def _check(self, model: Path) -> Placement:
        """That the provider is there and does the work, and that the tensors are the contract's."""
        if self.provider.name not in self.session.get_providers():
            raise missing_provider(self.module, self.provider, self.contract.graph)
        check_tensors(self.session, self.contract, self._dtype, model)
        return read_placement(self.session, self.provider.name, self.contract.graph)

    def _load_error(self, model: Path, error: BaseException) -> MotedgeError:
        free, total = self.cuda.memory_info()
        # cuBLAS and cuDNN only say that they can't start where there is no memory for what they start with
        starved = free < _STARTING_BYTES and any(word in str(error).lower() for word in ("cublas", "cudnn"))
        if not says_no_memory(error) and not starved:
            # No GPU, or a driver too old; with CUDA_PATH set, a missing library too
            if any(word in str(error) for word in ("CUDA failure", "CUDA_PATH")):
                return missing_provider(self.module, self.provider, self.contract.graph, error)
            return load_error(self.module, self.contract.graph, model, error)
        limit = self.settings.memory_limit_bytes
        return OutOfDeviceMemoryError(
            f"the GPU has no room for the weights of graph {self.contract.graph!r}",
            expected=f"at most {limit:,} bytes, as asked for" if limit else None,
            got=f"{free:,} of {total:,} bytes free; {error}",
            fix="close other programs, or take a smaller variant",
        )
