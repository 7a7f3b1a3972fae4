"""Energy of a stretch of time from what sensors read: counters where there are any, else power added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.profile.sensors.sampler import SensorLog
from motedge.profile.sensors.sensor import BOARD, CPU, ENERGY_J, GPU, POWER_W, Channel

# Rails that feed the whole module or board: Orin and Xavier NX, Thor, Nano and TX1, TX2
INPUT_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
_SOURCES = {ENERGY_J: "counter", POWER_W: "power"}
# A stretch with fewer readings says nothing about power that moves
FEWEST_READINGS = 3


@dataclass(frozen=True)
class Energy:
    """Of one channel over a stretch of time."""

    channel: Channel
    joules: float
    seconds: float
    readings: int

    @property
    def watts(self) -> float:
        """On average."""
        return self.joules / self.seconds


def energy_between(log: SensorLog, start_s: float, end_s: float) -> list[Energy]:
    """Energy of every channel that tells it, where its readings cover the stretch.

    Counters are read off at both ends, between readings in proportion. Power is added up by trapezoids.
    """
    found: list[Energy] = []
    if end_s <= start_s:
        return found
    for channel in log.channels():
        if channel.kind not in (ENERGY_J, POWER_W):
            continue
        series = log.series(channel)
        times = np.array([at_s for at_s, _ in series])
        values = np.array([value for _, value in series])
        inside = (times > start_s) & (times < end_s)
        readings = int(inside.sum())
        if readings < FEWEST_READINGS:
            continue
        ends = np.interp([start_s, end_s], times, values)
        if channel.kind == ENERGY_J:
            # A counter tells nothing outside its readings: only what lies between the first and the last
            first, last = max(start_s, times[0]), min(end_s, times[-1])
            joules = float(np.interp(last, times, values) - np.interp(first, times, values))
            found.append(Energy(channel, joules * (end_s - start_s) / (last - first), end_s - start_s, readings))
            continue
        at = np.concatenate(([start_s], times[inside], [end_s]))
        power = np.concatenate(([ends[0]], values[inside], [ends[1]]))
        joules = float(((power[1:] + power[:-1]) / 2 * np.diff(at)).sum())
        found.append(Energy(channel, joules, end_s - start_s, readings))
    return found


def whole_machine(energies: Sequence[Energy], parts: Mapping[str, str]) -> tuple[Energy, ...]:
    """The channels whose sum comes nearest to the whole, none counted twice; empty: nothing is known.

    A board's input rail; or all of its rails; or the GPU's and the processor's own.

    Args:
        energies: of one stretch.
        parts: sensor -> BOARD, GPU or CPU.
    """
    board = _one_source([e for e in energies if parts.get(e.channel.sensor) == BOARD])
    for name in INPUT_RAILS:
        rail = [energy for energy in board if energy.channel.name == name]
        if rail:
            return tuple(rail)
    if board:
        return tuple(board)
    gpu = _one_source([e for e in energies if parts.get(e.channel.sensor) == GPU])
    cpu = _one_source([e for e in energies if parts.get(e.channel.sensor) == CPU])
    # Of a package's parts only the memory is beside it, not within it
    cpu = [energy for energy in cpu if " " not in energy.channel.name or energy.channel.name.endswith(" dram")]
    return (*gpu, *cpu)


def energy_report(
    spent: Sequence[Energy], idle: Sequence[Energy], parts: Mapping[str, str], chunks: int
) -> Optional[dict[str, Any]]:
    """Energy per chunk of actions as JSON; None where no sensor tells it.

    Args:
        spent: over the ticks.
        idle: at rest, with the policy loaded.
        parts: as `whole_machine`.
        chunks: how many were made.
    """
    if not spent or not chunks:
        return None
    resting = {energy.channel: energy.watts for energy in idle}
    counted = whole_machine(spent, parts)
    total_w = sum(energy.watts for energy in counted)
    known = all(energy.channel in resting for energy in counted)
    idle_w = sum(resting[energy.channel] for energy in counted) if known and counted else None
    seconds = spent[0].seconds / chunks
    return {
        "chunks": chunks,
        "seconds": round(spent[0].seconds, 3),
        "counted": [_key(energy) for energy in counted],
        "of": sorted({parts[energy.channel.sensor] for energy in counted}),
        "power_w": round(total_w, 3) if counted else None,
        "idle_w": None if idle_w is None else round(idle_w, 3),
        "per_chunk_j": round(total_w * seconds, 4) if counted else None,
        "above_idle_j": None if idle_w is None else round((total_w - idle_w) * seconds, 4),
        "channels": {
            _key(energy): {
                "source": _SOURCES[energy.channel.kind],
                "power_w": round(energy.watts, 3),
                "idle_w": None if energy.channel not in resting else round(resting[energy.channel], 3),
                "per_chunk_j": round(energy.joules / chunks, 4),
                "readings": energy.readings,
            }
            for energy in spent
        },
    }


def _key(energy: Energy) -> str:
    """A GPU tells both its energy and its power."""
    return f"{energy.channel}, by {_SOURCES[energy.channel.kind]}"


def _one_source(energies: Sequence[Energy]) -> list[Energy]:
    """Those of the first sensor, since several read the same rails; its counters, if it has any, in place of power."""
    if not energies:
        return []
    first = [energy for energy in energies if energy.channel.sensor == energies[0].channel.sensor]
    counters = [energy for energy in first if energy.channel.kind == ENERGY_J]
    return counters or first
