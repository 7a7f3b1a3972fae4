"""What the engine library logs: errors kept for our messages, the rest passed to Python's logging."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger("motedge.targets.builders.library")
# Lines that every build without a GPU prints, or that say nothing about this graph
_NOISE = ("CUDA driver version is insufficient", "Unable to determine GPU memory usage", "Using default for use_cuda")


def make_logger(api: Any) -> Any:
    """An ILogger with a list `errors`. A function, since its base class is the library's.

    Python's own exceptions must not pass through the library, so `log` raises none.
    """
    severity = api.ILogger.Severity

    class CollectingLogger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, message: str) -> None:
            noise = any(words in message for words in _NOISE)
            if level in (severity.INTERNAL_ERROR, severity.ERROR) and not noise:
                self.errors.append(message.strip())
            elif level == severity.WARNING and not noise:
                _log.warning("%s", message.strip())
            else:
                _log.debug("%s", message.strip())

    return CollectingLogger()


def memory_failure(errors: list[str]) -> bool:
    """Whether the library ended for want of memory."""
    words = ("out of memory", "OutOfMemory", "std::bad_alloc", "Cannot allocate", "insufficient memory")
    return any(word.lower() in line.lower() for line in errors for word in words)
