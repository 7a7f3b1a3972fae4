"""What a reply says of its tick: `details["deadline"]` of a chunk, or the words of an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

from motedge.runtime.deadline.errors import DeadlineMissedError
from motedge.runtime.deadline.scheduler import CROWDED_OUT, REFUSED, Choice
from motedge.runtime.deadline.tick import Tick
from motedge.runtime.policy.chunk import FRESH, ActionChunk

KEY = "deadline"


def mark_reply(chunk: ActionChunk, tick: Tick, choice: Choice, now_s: float) -> ActionChunk:
    """The chunk with `details["deadline"]`; see `DeadlinePolicy.act` for its keys."""
    point = choice.point
    said: dict[str, Any] = {
        "deadline_ms": tick.deadline_ms,
        "took_ms": round(tick.passed_ms(now_s), 3),
        "met": chunk.kind == FRESH,
        "operating_point": None if point is None else point.name,
        "trained": None if point is None else point.trained,
        "forwards": None if point is None else point.forwards,
        "verdict": choice.verdict,
        "predicted_ms": None if choice.predicted_ms is None else round(choice.predicted_ms, 3),
        "rows_left": len(chunk.actions),
    }
    if chunk.kind != FRESH:
        made: Mapping[str, Any] = chunk.details[KEY]
        said["held_from"], said["held_trained"] = made["operating_point"], made["trained"]
    return dataclasses.replace(chunk, details={**chunk.details, KEY: said})


def missed_error(tick: Tick, choice: Choice, now_s: float, max_age_s: Optional[float]) -> DeadlineMissedError:
    """Why there is no answer."""
    predicted = "not known" if choice.predicted_ms is None else f"{choice.predicted_ms:.1f} ms"
    if choice.verdict == CROWDED_OUT:
        did = "an earlier tick ran over, so that this one was not started"
    elif choice.verdict == REFUSED or choice.point is None:
        did = f"nothing was started, for the cheapest point is predicted to take {predicted}"
    else:
        did = f"point {choice.point.name!r} (predicted: {predicted}) is not ready"
    age = "" if max_age_s is None else f" and is at most {max_age_s:g} s old"
    return DeadlineMissedError(
        "there are no actions by the deadline",
        expected=f"a chunk within {tick.deadline_ms:g} ms",
        got=f"{did}; {tick.passed_ms(now_s):.1f} ms have passed",
        why=f"no earlier chunk has rows whose time is still to come{age}",
        fix="a longer deadline, a ladder with a cheaper point, or less other work on this machine",
    )
