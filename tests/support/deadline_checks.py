"""What a policy under deadlines must do on a GPU. Its check is told a bench: see policy_on_gpu.py.

Runs on Python 3.9.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Callable, List, Tuple

import numpy as np
from policy_reference import CUP, observation

from motedge.runtime.deadline import DeadlineMissedError, with_deadlines

GENEROUS_MS, IMPOSSIBLE_MS = 60_000.0, 0.01
TICKS = 20


def check_deadlines(bench: Any) -> None:
    """Loaded in this thread, ticks in another: the same actions; impossible deadlines; punctual answers."""
    seen = observation(CUP)
    with bench.load() as policy:
        alone = [policy.act(seen, seed=1) for _ in range(3)][-1]
    with with_deadlines(bench.load(), deadline_ms=GENEROUS_MS) as acting:
        latencies = acting.warm_up(seen, rounds=5)
        nominal_ms = {name: times["nominal_ms"] for name, times in latencies.items()}
        # Noted, not judged: tiny models may take as long with fewer forwards
        bench.say("deadlines: every point is measured", min(nominal_ms.values()) > 0, nominal_ms=nominal_ms)
        fresh = acting.act(seen, seed=1)
        same = fresh.kind == "fresh" and np.array_equal(fresh.actions, alone.actions)
        bench.say("deadlines: a fresh chunk is the policy's", same, **fresh.details["deadline"])
        launches = {str(acting.act(seen, seed=1).details.get("launch")) for _ in range(3)}
        as_alone = launches == {str(alone.details.get("launch"))}
        bench.say("deadlines: warm-up leaves the best point captured", as_alone, launches=sorted(launches))
        held = acting.act(seen, seed=1, deadline_ms=IMPOSSIBLE_MS)
        rest = held.kind == "held" and len(held.actions) == len(fresh.actions) - held.first_row
        bench.say("deadlines: an impossible one is held", rest and held.first_row >= 0, **held.details["deadline"])
        late_ms, unanswered = _impossible(acting, seen, fresh.rate_hz, len(fresh.actions))
        bench.say("deadlines: nothing left is an error", unanswered, answer_after_deadline_ms=late_ms)
        tight_ms = 1.5 * nominal_ms[acting.ladder.best.name] + 1.5
        before = acting.counters
        kinds = [_kind(lambda: acting.act(seen, seed=1, deadline_ms=tight_ms)) for _ in range(TICKS)]
        after = acting.counters
        counted = after.ticks == after.met + after.missed + after.failed and after.failed == 0
        met = after.met - before.met
        facts = {"deadline_ms": round(tight_ms, 3), "met": met, "ticks": TICKS, "chosen": after.chosen}
        bench.say("deadlines: every tick is counted", counted and met == kinds.count("fresh"), **facts)


def _impossible(acting: Any, seen: Any, rate_hz: float, rows: int) -> Tuple[float, bool]:
    """How long after the deadline an answer comes, median, ms; and whether it was an error once no row was left."""
    late: List[float] = []
    for _ in range(TICKS):
        began = time.perf_counter()
        _kind(lambda: acting.act(seen, seed=1, deadline_ms=IMPOSSIBLE_MS))
        late.append((time.perf_counter() - began) * 1e3 - IMPOSSIBLE_MS)
    time.sleep(rows / rate_hz + 0.1)
    kind = _kind(lambda: acting.act(seen, seed=1, deadline_ms=IMPOSSIBLE_MS))
    return round(median(late), 3), kind == "none"


def _kind(act: Callable[[], Any]) -> str:
    try:
        return str(act().kind)
    except DeadlineMissedError:
        return "none"


CHECKS = (check_deadlines,)
