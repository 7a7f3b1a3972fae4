from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.runtime.prompt_cache import PromptCache


def _tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.int64)


def _kv(kib: int = 1) -> np.ndarray:
    return np.zeros(kib * 256, np.float32)


def test_hits_and_misses() -> None:
    cache, value = PromptCache(), _kv()
    assert cache.get(_tokens(1, 2)) is None
    cache.put(_tokens(1, 2), value)
    assert cache.get(_tokens(1, 2)) is value
    # Neither a prefix nor other ids of the same length
    assert cache.get(_tokens(1)) is None
    assert cache.get(_tokens(2, 1)) is None
    assert (cache.hits, cache.misses) == (1, 3)


def test_the_key_is_the_ids_not_the_array() -> None:
    cache, tokens = PromptCache(), _tokens(1, 2)
    cache.put(tokens, _kv())
    tokens[0] = 9
    assert cache.get(_tokens(1, 2)) is not None
    assert cache.get(tokens) is None
    assert cache.get(np.array([1, 0, 2], np.int64)[::2]) is not None


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache(max_entries=2)
    cache.put(_tokens(1), _kv())
    cache.put(_tokens(2), _kv())
    cache.get(_tokens(1))
    cache.put(_tokens(3), _kv())
    assert cache.get(_tokens(2)) is None
    assert cache.get(_tokens(1)) is not None
    assert len(cache) == 2


def test_bound_in_bytes() -> None:
    cache = PromptCache(max_bytes=3 * 1024)
    for n in range(5):
        cache.put(_tokens(n), _kv())
    assert len(cache) == 3
    assert cache.kept_bytes == 3 * 1024
    # One that is larger than the whole cache is kept alone
    cache.put(_tokens(99), _kv(10))
    assert len(cache) == 1
    assert cache.get(_tokens(99)) is not None


def test_the_same_prompt_replaces() -> None:
    cache, second = PromptCache(), _kv()
    cache.put(_tokens(1), _kv())
    cache.put(_tokens(1), second)
    assert len(cache) == 1
    assert cache.get(_tokens(1)) is second


def test_clear() -> None:
    cache = PromptCache()
    cache.put(_tokens(1), _kv())
    cache.clear()
    assert len(cache) == 0


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": 0}])
def test_refuses_no_room(bounds: dict) -> None:
    with pytest.raises(UsageError, match="without room"):
        PromptCache(**bounds)
