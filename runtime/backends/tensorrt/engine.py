"""A TensorRT or TensorRT-RTX engine on the GPU. Versions differ by their row of `versions.py` alone.

Plans are read through a mapping of the file, in every version: its pages are the system's to take back, so that the
plan is never held beside what the library makes of it. A stream reader in Python would copy each piece once more.
"""

from __future__ import annotations

import logging
import mmap
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Contract
from motedge.errors import BundleError, ContractError, HostError, UsageError
from motedge.runtime.backends.tensorrt.calls import LibraryCalls
from motedge.runtime.backends.tensorrt.context import TensorRtContext
from motedge.runtime.backends.tensorrt.library import TENSORRT, Library, find_library
from motedge.runtime.backends.tensorrt.log import process_logger
from motedge.runtime.backends.tensorrt.runtime_cache import RuntimeCacheFile, cache_path
from motedge.runtime.backends.tensorrt.tensors import EngineTensors, read_tensors
from motedge.runtime.cuda.interface import Cuda, Stream
from motedge.units import format_bytes

_log = logging.getLogger(__name__)
_BUILD_AGAIN = "build it again on this machine: motedge build BUNDLE --target TARGET"


class TensorRtEngine:
    """One graph's engine. Contexts share its weights; they are made and run by one thread at a time."""

    def __init__(self, path: Path, contract: Contract, dtype: str, cuda: Cuda, library: Library) -> None:
        """Holds nothing yet; see `load`."""
        self.path, self.contract, self.cuda, self.library = path, contract, cuda, library
        self._dtype, self._weight_bytes = dtype, 0
        self.calls = LibraryCalls(
            f"{library.name} {library.version}", path.name, contract.graph, process_logger(library.api), cuda
        )
        # IRuntime and ICudaEngine
        self._runtime: Any = None
        self.raw: Any = None
        self.tensors = EngineTensors((), ())
        self.runtime_cache: Optional[RuntimeCacheFile] = None
        self._stream: Optional[Stream] = None
        self._contexts: weakref.WeakSet[TensorRtContext] = weakref.WeakSet()

    @classmethod
    def load(
        cls,
        path: Path,
        contract: Contract,
        dtype: str,
        cuda: Cuda,
        *,
        library: Optional[Library] = None,
        weight_streaming_budget: Optional[int] = None,
        trust_host_code: bool = False,
        sha256: Optional[str] = None,
        cache_folder: Optional[Path] = None,
    ) -> TensorRtEngine:
        """Deserialises a plan that has passed the gate (`motedge.runtime.engine_files`).

        Args:
            path: the plan.
            contract: of its graph.
            dtype: the graph's own type: "fp32", "fp16" or "bf16".
            cuda: the GPU.
            library: None: the TensorRT of this machine.
            weight_streaming_budget: bytes of weights to keep on the GPU; the others come from the host in every run.
                For engines built with --weight-streaming; None keeps all on the GPU.
            trust_host_code: let a version-compatible plan run the code that it holds.
            sha256: of the file, where it is known; names the cache of TensorRT-RTX's kernels.
            cache_folder: of that cache; None: the engine's own folder.

        Raises:
            HostError: the library is missing or of an unknown version.
            BundleError: the file is missing, or not the engine of this graph.
            UsageError: a budget that the engine or the version does not have.
            EngineError: the library refused the plan.
            OutOfDeviceMemoryError: no room for it.
        """
        engine = cls(Path(path), contract, dtype, cuda, library or find_library(TENSORRT))
        with cuda.current():
            try:
                engine._deserialize(trust_host_code)
                engine.tensors = read_tensors(engine, engine.library, contract, dtype, engine.path.name)
                engine._set_budget(weight_streaming_budget)
                engine._weight_bytes = engine._measure_weights(weight_streaming_budget)
                if engine.library.row.runtime.just_in_time:
                    where = cache_path(engine.path, sha256, engine.library.version, cuda.facts, cache_folder)
                    engine.runtime_cache = RuntimeCacheFile(where, engine.calls)
            except BaseException:
                engine.close()
                raise
        return engine

    @property
    def dtype(self) -> str:
        """See `motedge.runtime.device_engine.DeviceEngine.dtype`."""
        return self._dtype

    @property
    def weight_bytes(self) -> int:
        """Weights on the GPU: what the library says, or before 10.16 the size of the plan."""
        return self._weight_bytes

    @property
    def auxiliary_streams(self) -> int:
        """Streams that a run takes beside its own. TensorRT forks and joins them by events, so that a run can be
        captured; they have the normal priority, whatever that of the run's stream."""
        return int(self.raw.num_aux_streams)

    def context(self, dims: Mapping[str, int]) -> TensorRtContext:
        """See `motedge.runtime.device_engine.DeviceEngine.context`.

        Raises:
            ContractError: as there; or the engine has been closed.
            EngineError: the library refused.
            OutOfDeviceMemoryError: no room for it.
        """
        if self.raw is None:
            raise ContractError(f"the engine of graph {self.contract.graph!r} has been closed")
        with self.cuda.current():
            context = TensorRtContext(self, dims)
        self._contexts.add(context)
        return context

    def own_stream(self) -> Stream:
        """A stream for what is not part of a run, such as switching profiles. One for the engine's life."""
        if self._stream is None:
            self._stream = self.cuda.stream()
        return self._stream

    def save_runtime_cache(self) -> bool:
        """Keeps the kernels that TensorRT-RTX has compiled; call it after the first runs. `close` does it too.

        Returns:
            Whether there was something new. Always False with TensorRT proper, which compiles nothing.
        """
        if self.runtime_cache is None or self.raw is None:
            return False
        try:
            with self.cuda.current():
                return self.runtime_cache.save()
        except HostError as error:
            # No context any more, or one of another process
            _log.warning("compiled kernels are not kept: %s", error)
            return False

    def close(self) -> None:
        """See `motedge.runtime.device_engine.DeviceEngine.close`; closes contexts that were left."""
        for context in list(self._contexts):
            context.close()
        self.save_runtime_cache()
        self.runtime_cache = None
        # The bindings free an object with its last reference; the engine before the runtime that made it
        self.raw = None
        self._runtime = None

    def _deserialize(self, trust_host_code: bool) -> None:
        if not self.path.is_file() or self.path.stat().st_size == 0:
            raise BundleError(f"there is no engine in {self.path}", fix=_BUILD_AGAIN)
        self._runtime = self.calls.require("start", self.library.api.Runtime, self.calls.logger)
        if trust_host_code:
            self._runtime.engine_host_code_allowed = True
        with open(self.path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            self.raw = self.calls.value("load its engine", self._runtime.deserialize_cuda_engine, plan)
        if self.raw is None:
            raise self.calls.failure("load its engine", fix=_BUILD_AGAIN)

    def _set_budget(self, budget: Optional[int]) -> None:
        if budget is None:
            return
        if budget < 0:
            raise UsageError("the weight streaming budget is wrong", expected="bytes, 0 or more", got=budget)
        if not self.library.row.weight_streaming or self.raw.streamable_weights_size == 0:
            raise UsageError(
                f"{self.path.name} can't stream its weights",
                why="it was not built for it"
                if self.library.row.weight_streaming
                else f"{self.calls.library} does not know it",
                fix="build it with --weight-streaming, or leave the budget out",
            )
        self.calls.value("set the weights' budget", setattr, self.raw, "weight_streaming_budget_v2", budget)
        if self.raw.weight_streaming_budget_v2 != min(budget, self.raw.streamable_weights_size):
            raise self.calls.failure(f"keep {format_bytes(budget)} of weights on the GPU")

    def _measure_weights(self, budget: Optional[int]) -> int:
        total = self.path.stat().st_size
        if self.library.row.runtime.engine_stat:
            # -1 where the library can't tell
            told = int(self.raw.get_engine_stat(self.library.api.EngineStat.TOTAL_WEIGHTS_SIZE))
            total = told if told > 0 else total
        if budget is None:
            return total
        streamable = int(self.raw.streamable_weights_size)
        return max(total - streamable, 0) + min(budget, streamable)
