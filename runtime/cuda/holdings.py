"""Who frees what, once, in which order, and never in a process that did not make it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from typing import Optional

from motedge.errors import HostError
from motedge.runtime.cuda.errors import CudaError, StickyCudaError
from motedge.runtime.cuda.ledger import Ledger
from motedge.runtime.cuda.raw import RawCuda

# Order in which kinds are freed: users of memory before memory
KINDS = ("graph", "event", "stream", "module", "memory", "pinned")
Close = Callable[[], None]


class Holdings:
    """Everything made through one Cuda. Knows no object that a caller holds, so that it can outlive them.

    Objects may be taken over and freed by several threads at once.
    """

    def __init__(self, raw: RawCuda) -> None:
        self.raw, self.ledger, self.closed = raw, Ledger(), False
        self._pid = os.getpid()
        self._closers: dict[str, dict[int, Close]] = {kind: {} for kind in KINDS}
        self._synchronize: dict[int, Close] = {}
        self._next = 0
        # Of the number: two objects with one key would be one
        self._numbering = threading.Lock()

    def require_usable(self) -> None:
        """Raises CudaError once closed, HostError in a forked child."""
        if self.closed:
            raise CudaError("the GPU's context was closed", fix="open it anew with open_cuda()")
        if self.forked:
            raise HostError(
                "a CUDA context can't be used in a forked process",
                why="the driver's state is not copied by fork()",
                fix="open CUDA in the child alone, or start it with multiprocessing's 'spawn'",
            )

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened CUDA."""
        return os.getpid() != self._pid

    def add(self, kind: str, close: Close, synchronize: Optional[Close] = None) -> int:
        """Takes over an object: `close` frees it, `synchronize` waits for work that may use others."""
        with self._numbering:
            self._next += 1
            key = self._next
        self._closers[kind][key] = close
        if synchronize is not None:
            self._synchronize[key] = synchronize
        return key

    def free(self, kind: str, key: int) -> bool:
        """Frees one object now; False if that was done before, or all was closed.

        Raises:
            CudaError: the driver refused; the object is still held. Where the context is lost, so is the object, and
                nothing is raised.
        """
        if self.closed or key not in self._closers[kind]:
            return False
        self.require_usable()
        self.raw.push()
        try:
            self._closers[kind][key]()
        except StickyCudaError:
            pass
        finally:
            self._pop()
        del self._closers[kind][key]
        return True

    def _pop(self) -> None:
        # A lost context is reported by the call that comes first on it
        with contextlib.suppress(StickyCudaError):
            self.raw.pop()

    def close(self) -> None:
        """Frees everything, then the context; harmless when repeated. In a forked child, does nothing at all.

        Raises:
            CudaError: the first refusal, after all else was freed. A lost context is no refusal.
        """
        if self.closed:
            return
        if self.forked:
            # Not even destructors may run here: they would call the driver
            self.closed = True
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
            return
        self.closed = True
        errors: list[CudaError] = []
        # A context that can't be made current is lost, and all in it with it
        if self._try(errors, self.raw.push):
            self._free_all(errors)
            self._try(errors, self.raw.pop)
        self._synchronize.clear()
        for kind in KINDS:
            self._closers[kind].clear()
        self.ledger.clear()
        self._try(errors, self.raw.release)
        if errors:
            raise errors[0]

    def _free_all(self, errors: list[CudaError]) -> None:
        for synchronize in self._synchronize.values():
            self._try(errors, synchronize)
        for kind in KINDS:
            for close in reversed(list(self._closers[kind].values())):
                self._try(errors, close)

    def close_at_exit(self) -> None:
        """Closes where nobody is left who could be told."""
        try:
            self.close()
        except HostError:
            return

    @staticmethod
    def _try(errors: list[CudaError], call: Close) -> bool:
        try:
            call()
        except StickyCudaError:
            return False
        except CudaError as error:
            errors.append(error)
            return False
        return True
