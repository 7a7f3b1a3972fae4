"""bench.json: every cell with its time, energy and errors, and which of them are on the front. motedge.bench/v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.bench.action_error import action_error
from motedge.bench.beside import Beside, cautions
from motedge.bench.front_share import front_shares
from motedge.bench.options import CONFIDENCE
from motedge.bench.pareto import pareto_front
from motedge.bench.state import MEMORY, OPENED, SESSION, Cell, CellState, is_done, states
from motedge.bench.turn_interval import FEWEST_TURNS, ratio_by_turns
from motedge.files import PathLike
from motedge.profile.report_file import read_report
from motedge.profile.statistics import Summary

SCHEMA = "motedge.bench/v1"
FILE = "bench.json"
# States of a cell
MEASURED, PARTIAL, FAILED, PENDING = "measured", "partial", "failed", "pending"


def bench_document(
    cells: Sequence[Cell],
    lines: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    predictions: Mapping[str, Mapping[str, Any]],
    *,
    draft: bool = False,
) -> dict[str, Any]:
    """The document of what there is; nothing in it but the journal's lines decides.

    Args:
        cells: all of them, the reference as shipped first.
        lines: of the journal, without its head.
        facts: "device", "versions", "bundles", "engine", "observations", "options", "notes", as they are written.
        predictions: of `motedge.bench.prediction.predictions`.
        draft: without intervals and shares, which take their time: between two rounds.

    Returns (a cell; None where it is not known):
        status, error: MEASURED, PARTIAL, FAILED or PENDING; why it failed
        latency_ms: count, mean, std, min, p50, p90, p99, max; median_interval: where the true median lies
        of_reference: time as a share of that of the reference as shipped, with its interval, from `turns` turns that
            both took side by side; None where they took fewer than FEWEST_TURNS so, and a note says why
        from_shipped: error of the actions against the reference as shipped: all that this cell costs
        from_same_point: against the reference at the same point: what the recipe alone costs
        energy, predicted, forwards, reused, first_ms, prefills, sessions, ms, scenes
        front: whether no other is better in time and error, in energy and error, in all three; time_share: how often it
            is on the first of them when turns are drawn anew
    """
    found = states(lines, cells)
    alone = bool(facts["options"]["one_at_a_time"])
    beside = {cell.id: Beside.of_cell(found, cell, cells[0], alone) for cell in cells}
    rounds = int(facts["options"]["rounds"])
    entries = [_entry(cell, cells, found, rounds) for cell in cells]
    for entry, cell in zip(entries, cells):
        entry["predicted"] = dict(predictions.get(cell.id, {}))
        if not draft:
            entry["median_interval"] = _median_interval(found[cell.id])
            entry["of_reference"] = _interval(beside[cell.id].reference, beside[cell.id].own)
    _mark_fronts(entries)
    notes = list(facts["notes"])
    if not draft:
        _mark_shares(entries, beside)
        notes += cautions([entry for entry in entries if entry["status"] == MEASURED], alone)
    done, missing = is_done(lines), [entry["id"] for entry in entries if entry["status"] in (PARTIAL, PENDING)]
    return {
        "schema": SCHEMA,
        "complete": done and not missing,
        "stopped": None if done and not missing else _stopped(entries, missing),
        **facts,
        "notes": notes,
        "reference": {"candidate": cells[0].candidate.name, "point": cells[0].point.name},
        "candidates": _candidates(cells, lines),
        "points": [point.to_dict() for point in dict.fromkeys(cell.point for cell in cells)],
        "sessions": [_without_kind(line) for line in lines if line["kind"] == SESSION],
        "cells": entries,
    }


def load_bench(path: PathLike) -> dict[str, Any]:
    """Reads a bench.json, or the one in a folder.

    Raises:
        DataError: it does not exist, is no bench, or of a newer schema.
    """
    return read_report(path, "bench", SCHEMA)[1]


def _entry(cell: Cell, cells: Sequence[Cell], found: Mapping[str, CellState], rounds: int) -> dict[str, Any]:
    state, right = found[cell.id], found[cells[0].id]
    same = found[Cell(cells[0].candidate, cell.point).id]
    turns = [state.turns[turn] for turn in sorted(state.turns)]
    times = [ms for turn in turns for ms in turn["ms"]]
    summary, answers = Summary.of(times), state.answers or {}
    return {
        "id": cell.id,
        "candidate": cell.candidate.name,
        "point": cell.point.name,
        "status": _status(state, rounds),
        "error": state.failed,
        "latency_ms": None if summary is None else summary.to_dict(),
        "median_interval": None,
        "of_reference": None,
        "from_shipped": _error(state, right),
        "from_same_point": _error(state, same),
        "energy": None if state.energy is None else state.energy["energy"],
        "forwards": answers.get("forwards"),
        "reused": answers.get("reused"),
        "first_ms": answers.get("first_ms"),
        "prefills": sum(turn["prefills"] for turn in turns),
        "launch": turns[-1]["launch"] if turns else None,
        "sessions": sorted({turn["session"] for turn in turns}),
        "ms": times,
        "scenes": [scene for turn in turns for scene in turn["scenes"]],
    }


def _status(state: CellState, rounds: int) -> str:
    if state.failed is not None:
        return FAILED
    if state.answers is not None and len(state.turns) == rounds:
        return MEASURED
    return PENDING if state.answers is None and not state.turns else PARTIAL


def _interval(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> Optional[dict[str, Any]]:
    """Of turns of both, side by side."""
    if len(after) < FEWEST_TURNS:
        return None
    if list(before) == list(after):
        # The reference itself
        return {"ratio": 1.0, "low": 1.0, "high": 1.0, "turns": len(after)}
    found = ratio_by_turns(before, after, confidence=CONFIDENCE)
    ratio, low, high = (round(value, 6) for value in (found.ratio, found.low, found.high))
    return {"ratio": ratio, "low": low, "high": high, "turns": len(after)}


def _median_interval(state: CellState) -> Optional[dict[str, float]]:
    turns = [line["ms"] for _, line in sorted(state.turns.items())]
    found = _interval([[1.0] * len(turn) for turn in turns], turns)
    return None if found is None else {"low": found["low"], "high": found["high"]}


def _error(state: CellState, right: CellState) -> Optional[dict[str, Any]]:
    if state.answers is None or right.answers is None:
        return None
    answers = state.answers
    return action_error(answers["actions"], right.answers["actions"], answers["fields"], answers["units"]).to_dict()


def _mark_fronts(entries: Sequence[dict[str, Any]]) -> None:
    for entry in entries:
        entry["front"] = {"time": False, "time_share": None, "energy": None, "all": None}
    sound = _sound(entries)
    for entry, front in zip(sound, pareto_front([(_ms(entry), _relative(entry) or 0.0) for entry in sound])):
        entry["front"]["time"] = front
    told = [entry for entry in sound if joules(entry) is not None]
    for name, costs in (
        ("energy", [(joules(entry) or 0.0, _relative(entry) or 0.0) for entry in told]),
        ("all", [(_ms(entry), joules(entry) or 0.0, _relative(entry) or 0.0) for entry in told]),
    ):
        for entry, front in zip(told, pareto_front(costs)):
            entry["front"][name] = front


def _mark_shares(entries: Sequence[dict[str, Any]], beside: Mapping[str, Beside]) -> None:
    """Only of turns that all sound cells have beside the reference, which is what they have in common."""
    sound = _sound(entries)
    found = [beside[entry["id"]] for entry in sound]
    shared = sorted(set.intersection(*(set(one.numbers) for one in found))) if found else []
    turns, rights = ([one.of(side, shared) for one in found] for side in ("own", "reference"))
    for entry, share in zip(sound, front_shares(turns, [_relative(entry) or 0.0 for entry in sound], beside=rights)):
        entry["front"]["time_share"] = share


def _sound(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are measured whole: others may still change."""
    return [entry for entry in entries if entry["status"] == MEASURED and _relative(entry) is not None]


def joules(entry: Mapping[str, Any]) -> Optional[float]:
    """Energy of a chunk, if it is known."""
    found = None if entry["energy"] is None else entry["energy"]["per_chunk_j"]
    return None if found is None else float(found)


def _ms(entry: Mapping[str, Any]) -> float:
    return float(entry["latency_ms"]["p50"])


def _relative(entry: Mapping[str, Any]) -> Optional[float]:
    return None if entry["from_shipped"] is None else entry["from_shipped"]["relative_l2"]


def _candidates(cells: Sequence[Cell], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for candidate in dict.fromkeys(cell.candidate for cell in cells):
        own = [line for line in lines if line.get("candidate") == candidate.name]
        loads = [line["load_s"] for line in own if line["kind"] == OPENED]
        memory = [line for line in own if line["kind"] == MEMORY]
        facts = {name: value for name, value in (memory[-1] if memory else {}).items() if name.endswith("_bytes")}
        found.append({**candidate.to_dict(), "load_s": loads, "memory": facts or None})
    return found


def _without_kind(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "kind"}


def _stopped(entries: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> str:
    if not missing:
        return "stopped before its end: energy or memory of some cells is not there"
    return f"stopped before its end: {len(missing)} of {len(entries)} cells are not measured whole"
