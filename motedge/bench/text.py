"""A bench as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from motedge.bench.front_share import SURE
from motedge.bench.report import FAILED, MEASURED, joules
from motedge.profile.conditions import bundle_words
from motedge.profile.sensors.sensor import BOARD, CPU, GPU
from motedge.profile.statistics import COUNT_FOR_P90, COUNT_FOR_P99
from motedge.units import count_of, format_bytes, format_ms

# Parts of the machine that sensors tell of -> whose energy is shown
_WHOSE = {
    (BOARD,): "of the whole board",
    (GPU,): "of the GPU alone: no sensor here tells that of the rest of the machine",
    (CPU,): "of the processor alone: no sensor here tells that of the rest of the machine",
    (CPU, GPU): "of GPU and processor: no sensor here tells that of the rest of the machine",
}
# Wider names are cut
_WIDEST = 44


def bench_lines(document: Mapping[str, Any]) -> list[str]:
    """The lines: what and where, a row a cell, then what else is known."""
    lines = [*_head(document), "", *_table(document), ""]
    for part in (_memory, _energy, _failures, _plan):
        lines += part(document)
    return lines + [f"note         {note}" for note in document["notes"]]


def _head(document: Mapping[str, Any]) -> list[str]:
    device, seen, options = document["device"], document["observations"], document["options"]
    gpus = ", ".join(gpu["name"] for gpu in device["gpus"])
    where = device["board"] or gpus or device["cpu"]
    bundles = document["bundles"]
    lines = [
        f"bundles      {', '.join(entry['name'] for entry in bundles)}: {bundle_words(bundles[0])}",
        f"engine       {document['engine']['name']}",
        f"device       {where}, {count_of(device['usable_cores'], 'core')}"
        + (f", target {device['target']}" if device["target"] else ""),
        f"observations {seen['count']}: {seen['kind']}; noise of seed {options['seed']} on",
        f"ticks        {options['repeat']} a cell in {count_of(options['rounds'], 'turn')}",
    ]
    if not document["complete"]:
        lines.append(f"INCOMPLETE   {document['stopped']}")
    return lines


def _table(document: Mapping[str, Any]) -> list[str]:
    cells = document["cells"]
    wide = min(_WIDEST, max(len(cell["id"]) for cell in cells)) + 2
    energy = any(joules(cell) is not None for cell in cells)
    head = f"  {'cell':<{wide}}{'forwards':>9}{'p50':>10}{'p90':>10}{'p99':>10}{'of shipped':>12}"
    head += f"{'energy':>10}" if energy else ""
    lines = [head + f"{'error':>10}{'at same':>10}   worst error"]
    for cell in cells:
        name = cell["id"] if len(cell["id"]) <= _WIDEST else cell["id"][: _WIDEST - 1] + "…"
        front = "*" if is_sure(cell) else "?" if cell["front"]["time"] else " "
        line = f"{front} {name:<{wide}}"
        if cell["status"] != MEASURED:
            lines.append(line + f"  {cell['status']}" + _so_far(cell))
            continue
        latency, ratio = cell["latency_ms"], cell["of_reference"]
        line += f"{forwards_words(cell):>9}" + "".join(f"{_ms(latency[key]):>10}" for key in ("p50", "p90", "p99"))
        line += f"{'-' if ratio is None else format(ratio['ratio'], '.3f'):>12}"
        line += f"{_joules(joules(cell)):>10}" if energy else ""
        line += f"{relative_words(cell['from_shipped']):>10}{relative_words(cell['from_same_point']):>10}"
        lines.append(f"{line}   {worst_words(cell['from_shipped'])}")
    return [*lines, *_legend(document)]


def _legend(document: Mapping[str, Any]) -> list[str]:
    right = document["reference"]
    count = document["options"]["repeat"]
    lines = [
        f"* on the front: no other cell is as fast and as near; ?: by chance, maybe (below {100 * SURE:g} % of "
        "drawings, or no share is told)",
        f"error: L2 of the actions' difference from {right['candidate']} / {right['point']}, relative; at same: from "
        f"{right['candidate']} at the same point",
    ]
    if count < COUNT_FOR_P99:
        least = COUNT_FOR_P90 if count < COUNT_FOR_P90 else COUNT_FOR_P99
        lines.append(f"p{90 if count < COUNT_FOR_P90 else 99} is told from {least} ticks on")
    return lines


def _memory(document: Mapping[str, Any]) -> list[str]:
    return [f"memory       {entry['name']}: {memory_words(entry)}" for entry in document["candidates"]]


def _energy(document: Mapping[str, Any]) -> list[str]:
    words = energy_words(document)
    return [f"energy       {words}"] if words else []


def energy_words(document: Mapping[str, Any]) -> str:
    """Whose energy it is, or why it is not known; empty where there is nothing to say of it."""
    if document["energy_absent"] is not None:
        return f"not known: {document['energy_absent']}"
    of = sorted({part for cell in document["cells"] for part in (cell["energy"] or {}).get("of", ())})
    return _WHOSE.get(tuple(of), "")


def _failures(document: Mapping[str, Any]) -> list[str]:
    """Each error once, with the cells that it stopped."""
    found: dict[str, list[str]] = {}
    for cell in document["cells"]:
        if cell["status"] == FAILED:
            found.setdefault(cell["error"], []).append(cell["id"])
    lines = []
    for error, cells in found.items():
        first, *rest = error.splitlines()
        lines.append(f"failed       {shortened(cells)}: {first}")
        lines += [f"             {line}" for line in rest]
    return lines


def _plan(document: Mapping[str, Any]) -> list[str]:
    told = [cell for cell in document["cells"] if cell["predicted"].get("predicted_ms") is not None]
    if told:
        return [
            f"planned      {cell['id']}: {format_ms(cell['predicted']['predicted_ms'])} "
            f"({format_ms(cell['predicted']['low_ms'])} to {format_ms(cell['predicted']['high_ms'])})"
            for cell in told
        ]
    why = next((cell["predicted"]["why"] for cell in document["cells"] if cell["predicted"].get("why")), None)
    return [] if why is None else [f"planned      not known: {why}"]


def _so_far(cell: Mapping[str, Any]) -> str:
    latency = cell["latency_ms"]
    return "" if latency is None else f", {count_of(latency['count'], 'tick')} so far, p50 {format_ms(latency['p50'])}"


def forwards_words(cell: Mapping[str, Any]) -> str:
    """Forwards of the generator in a tick, least to most where observations differ."""
    found = cell["forwards"]
    if not found:
        return "-"
    return f"{min(found)}" if min(found) == max(found) else f"{min(found)}-{max(found)}"


def is_sure(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is on the front, and enough turns tell that it is not by chance."""
    share = cell["front"]["time_share"]
    return bool(cell["front"]["time"]) and share is not None and share >= SURE


def relative_words(error: Optional[Mapping[str, Any]]) -> str:
    """A relative error in percent."""
    value = None if error is None else error["relative_l2"]
    return "-" if value is None else "0" if value == 0 else f"{100 * value:.3g} %"


def worst_words(error: Optional[Mapping[str, Any]]) -> str:
    """Greatest difference of each group of columns, in its unit."""
    if error is None:
        return "-"
    return ", ".join(f"{group['max']:.3g} {unit_words(group)}".strip() for group in error["groups"])


def unit_words(group: Mapping[str, Any]) -> str:
    """The unit of a group of columns; of a number without one, what its columns are called."""
    if group["unit"] != "1":
        return str(group["unit"])
    names = list(dict.fromkeys(field.rstrip("0123456789").rstrip("_ [(") for field in group["fields"]))
    return names[0] if len(names) == 1 else ""


def memory_words(candidate: Mapping[str, Any]) -> str:
    """What a candidate's process takes."""
    memory = candidate["memory"]
    if memory is None:
        return "not known"
    words = []
    if memory["gpu_bytes"]:
        words.append(f"{format_bytes(sum(memory['gpu_bytes'].values()))} of the GPU")
    if memory["resident_bytes"] is not None:
        words.append(f"{format_bytes(memory['resident_bytes'])} resident")
    if memory["peak_bytes"] is not None:
        words.append(f"at most {format_bytes(memory['peak_bytes'])}")
    return ", ".join(words) or "not told by this system"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """Names, the first few."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _ms(value: Optional[float]) -> str:
    return "-" if value is None else format_ms(value)


def _joules(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.3g} J"
