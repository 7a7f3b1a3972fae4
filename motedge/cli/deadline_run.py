"""`motedge run --deadline-ms`: ticks with a deadline, and the account of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import UsageError

if TYPE_CHECKING:
    from motedge.runtime.deadline import DeadlinePolicy
    from motedge.runtime.deadline.policy import ActingPolicy
    from motedge.runtime.policy import ActionChunk, Observation

# Ticks of each operating point before the first request, beside two cold ones
_WARM_UP_ROUNDS = 3


def check_deadline(deadline_ms: Optional[float], ladder: Optional[str]) -> None:
    """Before the bundle is loaded.

    Raises:
        UsageError: a deadline that is none, or a ladder without a deadline.
    """
    if deadline_ms is None:
        if ladder is not None:
            raise UsageError("--ladder is for ticks with a deadline", expected="--deadline-ms beside it")
        return
    from motedge.runtime.deadline.tick import checked_deadline_ms

    checked_deadline_ms(deadline_ms)


def with_deadline(policy: ActingPolicy, deadline_ms: float, ladder: Optional[str]) -> DeadlinePolicy:
    """The policy under a deadline; `ladder` is a TOML file, None derives the points from the policy's settings."""
    from motedge.runtime.deadline import Ladder, with_deadlines

    points = None if ladder is None else Ladder.from_toml(ladder, policy.settings)
    return with_deadlines(policy, points, deadline_ms=deadline_ms)


def act_by_deadline(acting: DeadlinePolicy, observation: Observation, repeat: int) -> list[ActionChunk]:
    """Warms up and acts; the chunks there are, fresh and held.

    Raises:
        DeadlineMissedError: not one tick was answered.
    """
    from motedge.runtime.deadline import DeadlineMissedError

    acting.warm_up(observation, rounds=_WARM_UP_ROUNDS)
    chunks, missed = [], None
    for _ in range(repeat):
        try:
            chunks.append(acting.act(observation))
        except DeadlineMissedError as error:
            missed = error
    if not chunks and missed is not None:
        raise missed
    return chunks


def deadline_report(acting: DeadlinePolicy) -> dict[str, Any]:
    """JSON form of what became of the ticks."""
    return {
        "counters": acting.counters.to_dict(),
        "latencies": acting.latencies,
        "ladder": [point.to_dict() for point in acting.ladder],
    }


def deadline_table(report: Mapping[str, Any], chunk: ActionChunk) -> str:
    """The report as text; `chunk` is the first answer."""
    from motedge.units import format_ms

    counters, said = report["counters"], chunk.details["deadline"]
    lines = [
        f"deadline     {said['deadline_ms']:g} ms: {counters['met']} met, {counters['missed']} missed "
        f"({counters['held']} answered with what was left of an earlier chunk, {counters['unanswered']} not at all)",
        f"first answer {chunk.kind}, point {said['operating_point'] or 'none'}, {format_ms(said['took_ms'])}",
        "",
        f"{'operating point':<26}{'forwards':>9}{'typical':>11}{'predicted':>11}{'taken':>7}",
    ]
    for point in report["ladder"]:
        times = report["latencies"][point["name"]]
        lines.append(
            f"{point['name']:<26}{point['forwards']:>9}{format_ms(times['nominal_ms']):>11}"
            f"{format_ms(times['predicted_ms']):>11}{counters['chosen'][point['name']]:>7}"
            + ("" if point["trained"] else "  untrained")
        )
    return "\n".join(lines)
