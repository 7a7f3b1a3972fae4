"""The C library's memory, told that messages of a megabyte come again and again."""

from __future__ import annotations

import ctypes
import logging

LOG = logging.getLogger(__name__)
# mallopt(3), glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# What may lie idle at the heap's end before it is given back
_IDLE_BYTES = 64 << 20
# Blocks below come from the heap: as large as a message may be by default; glibc takes 32 MiB at most
_HEAP_BYTES = 16 << 20


def keep_freed_memory() -> bool:
    """Keeps what messages leave behind for the next ones, in this process; whether the C library could be told so.

    Otherwise each message's pages are given back and taken anew, zeroed by the kernel, several times over: 260 page
    faults and more than half of a request's time with an image of 640 x 540 (benchmarks/serve_overhead.py).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        LOG.debug("this C library has no mallopt: messages cost more")
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_TRIM_THRESHOLD, _IDLE_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _HEAP_BYTES))
