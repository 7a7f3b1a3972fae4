"""Keeps the reasoner's K and V of prompts. They depend on the token ids alone, never on noise, time or images."""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

import numpy as np

from motedge.errors import UsageError
from motedge.runtime.engine import Array, IntArray


class PromptCache:
    """Least recently used prompts go first. Values are und K/V arrays [L, 2, K, U, D] in the generator's dtype.

    max_bytes is a bound on what is kept beside the newest entry, which always stays: a prompt larger than the whole
    cache still works, it is only not joined by others.
    """

    def __init__(self, *, max_entries: int = 8, max_bytes: Optional[int] = None) -> None:
        if max_entries < 1:
            raise UsageError("a prompt cache without room", expected="max_entries of at least 1", got=max_entries)
        if max_bytes is not None and max_bytes < 1:
            raise UsageError("a prompt cache without room", expected="max_bytes of at least 1", got=max_bytes)
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._entries: OrderedDict[bytes, Array] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all K and V kept."""
        return sum(value.nbytes for value in self._entries.values())

    def get(self, token_ids: IntArray) -> Optional[Array]:
        """K and V of this prompt, or None; counts a hit or a miss."""
        key = _key(token_ids)
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return value

    def put(self, token_ids: IntArray, und_kv: Array) -> None:
        """Keeps `und_kv`, which must not be changed afterwards, and drops the oldest beyond the bounds."""
        key = _key(token_ids)
        self._entries[key] = und_kv
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self._full():
            self._entries.popitem(last=False)

    def items(self) -> list[tuple[IntArray, Array]]:
        """Token ids with their K and V, the oldest first; counts neither hit nor miss."""
        return [(np.frombuffer(key, dtype="<i8").astype(np.int64), value) for key, value in self._entries.items()]

    def clear(self) -> None:
        """Drops every entry; the counters stay."""
        self._entries.clear()

    def _full(self) -> bool:
        if len(self._entries) > self._max_entries:
            return True
        return self._max_bytes is not None and self.kept_bytes > self._max_bytes


def _key(token_ids: IntArray) -> bytes:
    return np.ascontiguousarray(token_ids, dtype="<i8").tobytes()
