"""The accounts of one run of the loop: where the time went, and what was found in a cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.request import LoopCounters, LoopTimings, StepTiming
from motedge.runtime.spans import span

_Result = TypeVar("_Result")


class LoopAccount:
    """Starts its clock when made."""

    def __init__(self, cache: PromptCache, rotary: Any) -> None:
        """`rotary`: a function wrapped by functools.lru_cache, whose hits are counted."""
        self._start = time.perf_counter()
        self._cache, self._rotary = cache, rotary
        self._before = cache.hits, cache.misses, rotary.cache_info().hits
        self._spans_ms: dict[str, float] = {}
        self.noise_ahead = False

    def time(self, stage: str, work: Callable[[], _Result]) -> _Result:
        """Calls `work` and notes how long it took: stage "prefill", "rope" or "noise"."""
        start = time.perf_counter()
        with span(stage):
            result = work()
        self._spans_ms[stage] = 1e3 * (time.perf_counter() - start)
        return result

    def timings(self, steps: tuple[StepTiming, ...]) -> LoopTimings:
        """The run's times up to now."""
        total_ms = 1e3 * (time.perf_counter() - self._start)
        spans = self._spans_ms
        return LoopTimings(spans["prefill"], spans["rope"], spans["noise"], steps, total_ms)

    def counters(self, steps: tuple[StepTiming, ...]) -> LoopCounters:
        """The run's counts."""
        hits, misses, rope_hits = self._before
        return LoopCounters(
            forwards=sum(step.forwards for step in steps),
            prefills=self._cache.misses - misses,
            prompt_hits=self._cache.hits - hits,
            rope_hits=self._rotary.cache_info().hits - rope_hits,
            noise_ahead=self.noise_ahead,
            reused=sum(step.reused for step in steps),
        )
