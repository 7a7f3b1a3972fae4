"""What the engine library logs: errors kept for our messages, the rest passed to Python's logging."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

_log = logging.getLogger("motedge.engine_library")
# Lines that every build without a GPU prints, or that say nothing about this graph
_NOISE = ("CUDA driver version is insufficient", "Unable to determine GPU memory usage", "Using default for use_cuda")
# The newest that are kept: a process that runs for weeks may see many
KEPT_ERRORS = 64


def make_logger(api: Any) -> Any:
    """An ILogger with `errors`, a list for its maker and each thread that asks. A function: its base is the library's.

    Python's own exceptions must not pass through the library, so `log` raises none.
    """
    severity = api.ILogger.Severity

    class CollectingLogger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            # Thread -> its own: an engine of another thread must neither be blamed nor lose its reason
            self._errors: dict[int, list[str]] = {threading.get_ident(): []}

        @property
        def errors(self) -> list[str]:
            """What the library logged for this thread."""
            return self._errors.setdefault(threading.get_ident(), [])

        def _told(self) -> list[list[str]]:
            """This thread's, or everybody's where it is one of the library's own."""
            own = self._errors.get(threading.get_ident())
            return list(self._errors.values()) if own is None else [own]

        def log(self, level: Any, message: str) -> None:
            noise = any(words in message for words in _NOISE)
            if level in (severity.INTERNAL_ERROR, severity.ERROR) and not noise:
                for errors in self._told():
                    errors.append(message.strip())
                    del errors[:-KEPT_ERRORS]
            elif level == severity.WARNING and not noise:
                _log.warning("%s", message.strip())
            else:
                _log.debug("%s", message.strip())

    return CollectingLogger()


@functools.cache
def process_logger(api: Any) -> Any:
    """The one logger of the process: TensorRT keeps the first that it is given, and ignores those of later engines."""
    return make_logger(api)


def memory_failure(errors: Sequence[str]) -> bool:
    """Whether the library ended for want of memory."""
    words = (
        *("out of memory", "OutOfMemory", "std::bad_alloc", "Cannot allocate", "insufficient memory"),
        # TensorRT's allocator: "Requested amount of GPU memory (... bytes) could not be allocated"
        "could not be allocated",
    )
    return any(word.lower() in line.lower() for line in errors for word in words)


def context_lost(errors: Sequence[str]) -> bool:
    """Whether a kernel crashed, after which nothing works in this CUDA context."""
    # CUDA's own texts (cudaGetErrorString) of the errors that stay
    words = (
        "illegal memory access",
        "misaligned address",
        "unspecified launch failure",
        "illegal instruction",
        "device-side assert",
        "uncorrectable ECC error",
        "hardware stack error",
        "invalid program counter",
        "launch timed out",
    )
    return any(word in line for line in errors for word in words)
