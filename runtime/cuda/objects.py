"""What a ProvidedCuda hands out. Each keeps it alive, so that it is not closed under them."""

from __future__ import annotations

from typing import Any

from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.cuda.graph import GraphCapture
from motedge.runtime.cuda.holdings import Holdings
from motedge.runtime.cuda.interface import Event, Stream


class _Provided:
    """Something that its Cuda frees. `token` is what the provider calls it."""

    def __init__(self, cuda: object, holdings: Holdings, key: int, token: Any) -> None:
        self._cuda, self._holdings, self._key, self._token = cuda, holdings, key, token

    def usable(self) -> Any:
        """The token. Raises CudaError once closed."""
        if self._holdings.closed:
            self._holdings.require_usable()
        return self._token


def token_of(thing: object) -> Any:
    """What the provider calls a stream, event or kernel.

    Raises:
        CudaError: it was made by something else, or its Cuda was closed.
    """
    if not isinstance(thing, _Provided):
        raise CudaError(
            "this was not made by this Cuda", expected="a stream, event or kernel of its own", got=type(thing)
        )
    return thing.usable()


class ProvidedMemory(_Provided):
    """DeviceMemory."""

    def __init__(self, cuda: object, holdings: Holdings, key: int, pointer: int, nbytes: int, purpose: str) -> None:
        super().__init__(cuda, holdings, key, None)
        self.pointer, self.nbytes, self.purpose = pointer, nbytes, purpose

    def free(self) -> None:
        """Gives it back, in any thread, context or not; harmless when repeated."""
        if self._holdings.free("memory", self._key):
            self._holdings.ledger.remove(self.purpose, self.nbytes)


class ProvidedStream(_Provided):
    """Stream."""

    def __init__(
        self, cuda: object, holdings: Holdings, key: int, token: Any, handle: int, numeric_priority: int
    ) -> None:
        super().__init__(cuda, holdings, key, token)
        self.handle, self.numeric_priority = handle, numeric_priority

    def synchronize(self) -> None:
        """See Stream."""
        self._holdings.raw.synchronize(self.usable())

    def wait(self, event: Event) -> None:
        """See Stream."""
        self._holdings.raw.wait(self.usable(), token_of(event))


class ProvidedEvent(_Provided):
    """Event."""

    def record(self, stream: Stream) -> None:
        """See Event."""
        self._holdings.raw.record(self.usable(), token_of(stream))

    def synchronize(self) -> None:
        """See Event."""
        self._holdings.raw.synchronize_event(self.usable())

    @property
    def passed(self) -> bool:
        """See Event."""
        return self._holdings.raw.passed(self.usable())

    def elapsed_ms(self, start: Event) -> float:
        """See Event."""
        return self._holdings.raw.elapsed_ms(token_of(start), self.usable())


class ProvidedKernel(_Provided):
    """Kernel. Freed with its module."""

    def __init__(self, cuda: object, holdings: Holdings, name: str, token: Any) -> None:
        super().__init__(cuda, holdings, 0, token)
        self.name = name


class ProvidedGraph(_Provided):
    """CudaGraph."""

    def __init__(self, cuda: object, holdings: Holdings, key: int, graphs: GraphCapture, handle: int) -> None:
        super().__init__(cuda, holdings, key, handle)
        self._graphs, self._closed = graphs, False

    def launch(self, stream: Stream) -> None:
        """See CudaGraph."""
        token_of(stream)
        if self._closed:
            raise CudaError("a CUDA graph was launched after it had been closed")
        self._graphs.launch(self._token, stream.handle)

    def close(self) -> None:
        """See CudaGraph."""
        self._closed = True
        self._holdings.free("graph", self._key)
