"""What a provider must be able to do, call by call. Ownership, ledger and order are written once, in provided.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from motedge.runtime.cuda.interface import DeviceFacts, KernelArgument

# Whatever the library wants to be handed again: an integer, or its own object
Token = Any


class RawCuda(Protocol):
    """The calls of one library on one GPU's primary context. Each raises CudaError; all but the first four need it
    current.
    """

    name: str
    facts: DeviceFacts
    # Whether `stream` can make streams of another priority than 0
    has_priorities: bool

    def push(self) -> None:
        """Makes the context this thread's current one."""
        ...

    def pop(self) -> None:
        """Makes current what was before `push`."""
        ...

    def release(self) -> None:
        """Gives the primary context back; nothing works afterwards."""
        ...

    def allocate(self, nbytes: int) -> tuple[Token, int]:
        """A block of device memory and its address."""
        ...

    def free(self, block: Token) -> None:
        """Frees it."""
        ...

    def pin(self, nbytes: int) -> tuple[Token, int]:
        """A block of page-locked host memory and its address."""
        ...

    def unpin(self, block: Token) -> None:
        """Frees it."""
        ...

    def memory_info(self) -> tuple[int, int]:
        """Bytes free and in all."""
        ...

    def priorities(self) -> tuple[int, int]:
        """The least and the greatest priority of a stream: (0, -5)."""
        ...

    def stream(self, priority: int) -> tuple[Token, int]:
        """A stream that does not wait for the legacy default stream, and its CUstream."""
        ...

    def destroy_stream(self, stream: Token) -> None:
        """Frees it once its work is done."""
        ...

    def synchronize(self, stream: Token) -> None:
        """Waits for its work."""
        ...

    def wait(self, stream: Token, event: Token) -> None:
        """Its later work waits for the event."""
        ...

    def wait_for_handle(self, stream: Token, producer: int) -> None:
        """Its later work waits for what a CUstream of another library holds now."""
        ...

    def event(self) -> Token:
        """An event that measures time."""
        ...

    def destroy_event(self, event: Token) -> None:
        """Frees it."""
        ...

    def record(self, event: Token, stream: Token) -> None:
        """Records it."""
        ...

    def synchronize_event(self, event: Token) -> None:
        """Waits for it."""
        ...

    def passed(self, event: Token) -> bool:
        """Whether it has been passed."""
        ...

    def elapsed_ms(self, start: Token, end: Token) -> float:
        """Milliseconds between two events."""
        ...

    def copy(self, destination: int, source: int, nbytes: int, stream: Token) -> None:
        """Enqueues a copy between any two addresses."""
        ...

    def copy_rows(
        self,
        destination: int,
        destination_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        stream: Token,
    ) -> None:
        """Enqueues a copy of rows."""
        ...

    def zero(self, pointer: int, nbytes: int, stream: Token) -> None:
        """Enqueues zeros."""
        ...

    def load_module(self, image: bytes) -> Token:
        """Loads a cubin, fatbin or PTX."""
        ...

    def unload_module(self, module: Token) -> None:
        """Unloads it."""
        ...

    def function(self, module: Token, name: str) -> Token:
        """A kernel of a module."""
        ...

    def launch(
        self,
        function: Token,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[KernelArgument],
        stream: Token,
        shared_bytes: int,
    ) -> None:
        """Enqueues a kernel; `arguments` are numpy scalars."""
        ...
