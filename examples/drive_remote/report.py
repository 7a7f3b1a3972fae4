"""What came of a drive, as JSON: success of each leg, and whether the chunks were there in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from examples.drive_remote.loop import Leg, Log, Moment
from examples.train_small.drive.drive import Drive, plan_error
from examples.train_small.drive.score import score
from examples.train_small.road.expert import RATE_HZ, Expert, behaviour_index
from examples.train_small.road.instructions import behaviour_of
from examples.train_small.road.track import Track
from motedge.client import StreamOptions
from motedge.client.stream_report import Durations

SCHEMA = "motedge.drive_remote/v1"
_SERVER = ("server", "family", "checkpoint", "bundle_sha256", "embodiment")


def drive_report(
    log: Log, legs: Sequence[Leg], track: Track, seed: int, options: StreamOptions, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """JSON form.

    Returns:
        legs: told, done, success and progress of each, as `examples.train_small.drive` scores drives
        chunks: asked for and used; latency from the request to the answer; how many came after their takeover was due
        periods: of 0.1 s: with a row of a chunk, with none ("held": the car brakes), missed by the loop
        stream: the whole of the stream's report
    """
    counters = log.stream["counters"]
    due_ms = options.lead_rows * options.period_s * 1e3
    round_trip, infer = Durations(), Durations()
    for plan in log.plans.values():
        round_trip.add(plan.round_trip_ms / 1e3)
        infer.add(plan.infer_ms / 1e3)
    expert = Expert(track)
    scored = [_leg(number, leg, log, expert, seed) for number, leg in enumerate(legs)]
    return {
        "schema": SCHEMA,
        "server": {key: metadata.get(key) for key in _SERVER},
        "road": seed,
        "ended": log.ended,
        "success": all(entry["success"] for entry in scored),
        "legs": scored,
        "chunks": {
            "asked": counters["requested"],
            "used": counters["chunks_used"],
            "failed": counters["source_errors"] + counters["chunks_bad"],
            "due_after_ms": due_ms,
            "late": _late(log, due_ms / 1e3),
            "round_trip_ms": round_trip.summary_ms(),
            "infer_ms": infer.summary_ms(),
        },
        "periods": {
            "of_s": options.period_s,
            "fresh": counters["fresh"],
            "past_takeover": counters["rows_overrun"],
            "held": counters["gap_ticks"],
            "missed": counters["missed_ticks"],
        },
        "errors": [{"text": text, "times": times} for text, times in Counter(log.errors).items()],
        "stream": log.stream,
    }


def summary(report: Mapping[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{'told':<42}{'did':<14}{'metres':>7}{'off road':>10}"]
    for leg in report["legs"]:
        if leg["done"] == "not driven":
            lines.append(f"{leg['told']:<42}not driven")
            continue
        did = leg["done"] if leg["success"] else f"{leg['done']} (no)"
        lines.append(f"{leg['told']:<42}{did:<14}{leg['metres']:>7.0f}{leg['off_road_s']:>8.1f} s")
    chunks, periods, times = report["chunks"], report["periods"], report["chunks"]["round_trip_ms"]
    lines += [
        f"{times['count']} chunks, p50 {times['p50']:.0f} ms, p95 {times['p95']:.0f} ms, "
        f"at most {times['max']:.0f} ms; {chunks['late']} late, {chunks['failed']} failed",
        f"{periods['fresh']} periods of {1e3 * periods['of_s']:.0f} ms with an action of a chunk, {periods['held']} "
        f"without, {periods['missed']} missed by the loop",
    ]
    ended = [] if report["ended"] == "at the end" else [f"ended early: {report['ended']}"]
    return "\n".join([*lines, *ended])


def _leg(number: int, leg: Leg, log: Log, expert: Expert, seed: int) -> dict[str, Any]:
    moments = [moment for moment in log.moments if moment.leg == number]
    behaviour = behaviour_of(leg.instruction)
    if not moments:
        return {"told": leg.instruction, "behaviour": behaviour, "success": False, "done": "not driven"}
    what, first = behaviour_index(behaviour), moments[0]
    plans = [p for p in log.plans.values() if p.sight.instruction == leg.instruction and _within(p.sight, moments)]
    errors = [
        plan_error(plan.rows, expert.plan(plan.sight.pose[None], [what], [_along(plan.sight.time_s, moments)])[0])
        for plan in plans
    ]
    drive = Drive(
        behaviour,
        seed,
        np.array([moment.lateral_m for moment in moments]),
        np.array([moment.speed_m_s for moment in moments]),
        np.array([moment.along_m - first.along_m for moment in moments]),
        expert.way(first.along_m, what, len(moments) / RATE_HZ),
        np.array(errors),
        np.array([plan.round_trip_ms for plan in plans]),
    )
    judged = score(drive)
    return {
        "told": leg.instruction,
        "behaviour": behaviour,
        "done": judged.done,
        "success": judged.success,
        "progress": judged.progress,
        "obeyed": judged.obeyed,
        "off_road_s": judged.off_s,
        "seconds": round(len(moments) / RATE_HZ, 1),
        "metres": round(float(drive.way[-1]), 1),
        "plan_error_m": round(float(np.mean(errors)), 4) if errors else None,
    }


def _late(log: Log, due_s: float) -> int:
    """Chunks that took over later than they should have, or never; the first is waited for."""
    first: dict[int, float] = {}
    for moment in log.moments:
        first.setdefault(moment.plan.sight.number, moment.time_s)
    last = max(first)
    late = [log.plans[n].sight.time_s + due_s + 1e-6 < first.get(n, np.inf) for n in log.plans if 0 < n <= last]
    return sum(late)


def _within(sight: Any, moments: Sequence[Moment]) -> bool:
    return bool(moments[0].time_s - 1e-6 <= sight.time_s <= moments[-1].time_s + 1e-6)


def _along(time_s: float, moments: Sequence[Moment]) -> float:
    """Metres along the road at a moment of the drive."""
    return float(np.interp(time_s, [m.time_s for m in moments], [m.along_m for m in moments]))
