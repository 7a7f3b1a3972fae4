"""Where a tick's time goes beside kernels: from a trace of the GPU's own activity, whoever launched it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_scene import SEED, GpuScene, Report
from gpu_ticks import open_policy
from torch.profiler import ProfilerActivity, profile, record_function

TICKS, MARK = 8, "motedge tick"
GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
# Shorter pauses are the GPU's own, between a kernel and the next one in the queue
GAP_US = 5.0
NAMED, LONGEST_GAPS = 25, 8
Event = Mapping[str, Any]


def run(scene: GpuScene, report: Report) -> None:
    """A few ticks of ours, guidance in its interval, under torch.profiler (CUPTI), which slows the host down a bit."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if scene.device == "cuda" else [])
    with open_policy(scene) as policy:
        for _ in range(4):
            policy.act(scene.observation, seed=SEED)
        seen = scene.observation
        with profile(activities=activities):
            policy.act(seen, seed=SEED)
        with profile(activities=activities) as traced:
            for _ in range(TICKS):
                with record_function(MARK):
                    policy.act(seen, seed=SEED)
                if scene.device == "cuda":
                    torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            traced.export_chrome_trace(str(path))
            events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    report.put("ticks", account(events))
    report.put("kernels", longest(events))


def account(events: Sequence[Event]) -> dict[str, Any]:
    """Medians over the ticks, in us: wall time, GPU at work, and the three ways of its being idle."""
    windows = sorted(
        (e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == MARK and e.get("cat") == "user_annotation"
    )
    work = sorted(
        ((e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e.get("cat") in GPU_CATEGORIES),
        key=lambda e: e[:2],
    )
    rows, gaps = [], []
    for start, end in windows:
        inside = [piece for piece in work if start <= piece[0] < end]
        if not inside:
            continue
        row, found = _tick(start, end, inside)
        rows.append(row)
        gaps += found
    if not rows:
        return {"ticks": len(windows), "failed": "the trace holds no work of a GPU"}
    values = {key: round(median(row[key] for row in rows), 2) for key in rows[0]}
    outside = values["wall_us"] - values["busy_us"]
    longest_gaps = [
        {"us": round(us, 2), "after": before[:80], "before": after[:80]}
        for us, before, after in sorted(gaps, reverse=True)[:LONGEST_GAPS]
    ]
    return {
        "ticks": len(rows),
        **values,
        "outside_us": round(outside, 2),
        "outside_share": round(outside / values["wall_us"], 5),
        "gap_threshold_us": GAP_US,
        "longest_gaps": longest_gaps,
    }


def _tick(start: float, end: float, work: Sequence[tuple[float, float, str]]) -> tuple[dict[str, float], list[Any]]:
    """One tick's figures, and its gaps as (us, name before, name after)."""
    busy, reached, last, gaps = 0.0, work[0][0], work[0][2], []
    for begin, finish, name in work:
        if begin - reached > GAP_US:
            gaps.append((begin - reached, last, name))
        busy += max(0.0, finish - max(begin, reached))
        if finish > reached:
            reached, last = finish, name
    row = {
        "wall_us": end - start,
        "busy_us": busy,
        "before_first_us": work[0][0] - start,
        "after_last_us": max(0.0, end - reached),
        "idle_between_us": reached - work[0][0] - busy,
        "gaps": len(gaps),
        "gaps_us": sum(gap[0] for gap in gaps),
        "launched": len(work),
    }
    return row, gaps


def longest(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The GPU's time by kernel name, the longest first; us in all traced ticks."""
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in events:
        if event.get("cat") in GPU_CATEGORIES:
            total[event["name"]] += event["dur"]
            count[event["name"]] += 1
    return [{"name": n[:160], "us": round(us, 1), "count": count[n]} for n, us in total.most_common(NAMED)]
