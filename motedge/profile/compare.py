"""What changed between two profiles, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.profile.bootstrap import Interval, ratio_of_medians
from motedge.profile.conditions import device_key
from motedge.profile.dependence import dependence
from motedge.profile.measurement import WARM
from motedge.profile.options import FEWEST_TICKS
from motedge.profile.stages import in_order

SCHEMA = "motedge.profile_comparison/v1"
SLOWER, FASTER, NOISE, SMALL = "slower", "faster", "noise", "small"
TOO_FEW, NO_TIME = "too few ticks", "no time in some ticks"
# Of the conditions below those that make it other work
_WORK = frozenset(("bundle", "model", "shape set", "recipe", "variants", "steps", "forwards"))
# Of all stages together that there is no false alarm among them
CONFIDENCE = 0.95
# Changes below are not called changes. Two runs of the same differ by more than ticks within one do
LEAST_INTERLEAVED, LEAST_SEPARATE = 0.02, 0.05
# Independent ticks below which an interval is known to be too narrow
LEAST_INDEPENDENT = 20
# Stages that take less than this much of the tick on both sides are not judged: nobody waits for them
_LEAST_SHARE = 1e-3
# Where of a document conditions stand that may differ: name in the report, way
_CONDITIONS = (
    ("bundle", ("bundle", "manifest_sha256")),
    ("model", ("bundle", "model")),
    ("shape set", ("bundle", "shape_set")),
    ("engine", ("engine", "name")),
    ("recipe", ("engine", "recipe")),
    ("variants", ("engine", "variants")),
    ("threads", ("engine", "threads")),
    ("steps", ("chunk", "steps")),
    ("forwards", ("chunk", "forwards")),
    ("prompt tokens", ("chunk", "und_len")),
    ("launch", ("chunk", "launch")),
    ("pace", ("options", "rate_hz")),
    ("power mode", ("device", "power_mode")),
    ("versions", ("versions",)),
)


@dataclass(frozen=True)
class StageChange:
    """One stage on both sides, ms."""

    stage: str
    before_ms: float
    after_ms: float
    before_count: int
    after_count: int
    # None: too few ticks, or a clock that saw no time go by in some
    interval: Optional[Interval]
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two profiles side by side."""

    stages: tuple[StageChange, ...]
    # Stages that one of them alone has
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    # (Condition, before, after) of what was not the same
    differences: tuple[tuple[str, str, str], ...]
    # What else must be known before the figures are believed
    cautions: tuple[str, ...]
    # (Figure, unit, before, after) without an interval: each is one number
    figures: tuple[tuple[str, str, Optional[float], Optional[float]], ...]
    interleaved: bool
    least_change: float
    # Of one stage's interval
    confidence: float

    @property
    def tick(self) -> Optional[StageChange]:
        """The tick as a whole."""
        return next((change for change in self.stages if change.stage == "tick"), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        document = asdict(self)
        document["differences"] = [
            {"what": what, "before": before, "after": after} for what, before, after in self.differences
        ]
        document["figures"] = [
            {"what": what, "unit": unit, "before": before, "after": after} for what, unit, before, after in self.figures
        ]
        return {"schema": SCHEMA, **document}


def compare_profiles(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    other_device: bool = False,
    least_change: Optional[float] = None,
    seed: int = 0,
) -> Comparison:
    """Compares the warm ticks of two documents of `motedge.profile.report`.

    Args:
        before: the one that is compared with.
        after: the one that may be better or worse.
        other_device: whether profiles of two devices are taken, and marked.
        least_change: share below which a change is not called one; None: LEAST_INTERLEAVED or LEAST_SEPARATE.
        seed: of the resampling.

    Raises:
        UsageError: they are of two devices, or one of them has no warm tick.
    """
    same_device = device_key(before["device"]) == device_key(after["device"])
    if not same_device and not other_device:
        raise UsageError(
            "the profiles are of two devices",
            expected=_device_words(before["device"]),
            got=_device_words(after["device"]),
            why="a change could be the device's as well as the software's",
            fix="profile both on one device; --other-device compares them all the same, and says so",
        )
    interleaved = _session(before) is not None and _session(before) == _session(after)
    if least_change is None:
        least_change = LEAST_INTERLEAVED if interleaved else LEAST_SEPARATE
    columns = [_warm(before, "first"), _warm(after, "second")]
    shared = [name for name in in_order(columns[0]) if name in columns[1]]
    judged = [name for name in shared if _counts(name, columns)]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(judged))
    return Comparison(
        stages=tuple(_change(name, columns, confidence, interleaved, least_change, seed) for name in judged),
        only_before=tuple(name for name in in_order(columns[0]) if name not in columns[1]),
        only_after=tuple(name for name in in_order(columns[1]) if name not in columns[0]),
        differences=tuple(_differences(before, after, same_device)),
        cautions=(*_cautions(before, after, interleaved), *_alike(judged, columns, interleaved)),
        figures=tuple(_figures(before, after)),
        interleaved=interleaved,
        least_change=least_change,
        confidence=confidence,
    )


def _change(
    stage: str,
    columns: Sequence[Mapping[str, Sequence[Optional[float]]]],
    confidence: float,
    interleaved: bool,
    least_change: float,
    seed: int,
) -> StageChange:
    before, after = _samples(columns[0][stage], columns[1][stage], interleaved)
    medians = [_median(_there(column[stage])) for column in columns]

    def made(interval: Optional[Interval], verdict: str) -> StageChange:
        return StageChange(stage, medians[0], medians[1], len(before), len(after), interval, verdict)

    if min(len(before), len(after)) < FEWEST_TICKS:
        return made(None, TOO_FEW)
    if min(*before, *after) <= 0:
        return made(None, NO_TIME)
    interval = ratio_of_medians(before, after, confidence=confidence, paired=interleaved, seed=seed)
    if interval.holds_one:
        return made(interval, NOISE)
    if abs(interval.ratio - 1) < least_change:
        return made(interval, SMALL)
    return made(interval, SLOWER if interval.ratio > 1 else FASTER)


def _warm(document: Mapping[str, Any], which: str) -> dict[str, list[Optional[float]]]:
    """Stage -> ms of each warm tick; None: the tick has no such stage.

    Raises:
        UsageError: there is no warm tick.
    """
    samples = document["samples"]
    warm = [phase == WARM for phase in samples["phase"]]
    columns = {
        name: [ms for ms, is_warm in zip(column, warm) if is_warm] for name, column in samples["stages_ms"].items()
    }
    if not _there(columns.get("tick", [])):
        raise UsageError(f"the {which} profile has no warm tick", fix="take it again, and let it run")
    return {name: column for name, column in columns.items() if _there(column)}


def _there(column: Sequence[Optional[float]]) -> list[float]:
    return [ms for ms in column if ms is not None]


def _samples(
    before: Sequence[Optional[float]], after: Sequence[Optional[float]], interleaved: bool
) -> tuple[list[float], list[float]]:
    """What is compared: all there is of both; of ticks in turn those pairs of which both have the stage."""
    if not interleaved:
        return _there(before), _there(after)
    pairs = [(a, b) for a, b in zip(before, after) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _alike(
    stages: Sequence[str], columns: Sequence[Mapping[str, Sequence[Optional[float]]]], interleaved: bool
) -> list[str]:
    """The stages whose ticks follow each other so closely that the interval is too narrow."""
    found = []
    for name in stages:
        before, after = _samples(columns[0][name], columns[1][name], interleaved)
        if min(len(before), len(after)) < FEWEST_TICKS or min(*before, *after) <= 0:
            continue
        series = ([b / a for a, b in zip(before, after)],) if interleaved else (before, after)
        independent, count = min((dependence(values).independent, len(values)) for values in series)
        if independent < LEAST_INDEPENDENT:
            alike = "" if count < LEAST_INDEPENDENT else f", as much as {independent:.0f} that were not alike"
            found.append(f"{name}: only {count} ticks{alike}: its interval is too narrow; take more")
    return found


def _counts(name: str, columns: Sequence[Mapping[str, Sequence[Optional[float]]]]) -> bool:
    return any(_median(_there(column[name])) >= _LEAST_SHARE * _median(_there(column["tick"])) for column in columns)


def _median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _session(document: Mapping[str, Any]) -> Any:
    """What profiles taken in turn have in common."""
    return (document.get("interleaved") or {}).get("session")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], same_device: bool) -> list[tuple[str, str, str]]:
    found = []
    if not same_device:
        found.append(("DEVICE", _device_words(before["device"]), _device_words(after["device"])))
    for name, way in _CONDITIONS:
        values = [_at(document, way) for document in (before, after)]
        if values[0] == values[1]:
            continue
        if isinstance(values[0], dict) and isinstance(values[1], dict):
            keys = [key for key in {**values[0], **values[1]} if values[0].get(key) != values[1].get(key)]
            found += [(f"{name}: {key}", str(values[0].get(key)), str(values[1].get(key))) for key in keys]
        else:
            found.append((name, _short(values[0]), _short(values[1])))
    return found


def _cautions(before: Mapping[str, Any], after: Mapping[str, Any], interleaved: bool) -> list[str]:
    found = []
    for name, document in (("first", before), ("second", after)):
        if not document["complete"]:
            found.append(f"the {name} run did not come to its end: {document.get('stopped')}")
        seen = (document.get("throttling") or {}).get("seen")
        if seen:
            found.append(f"the machine was slowed down in the {name} run: {', '.join(seen)}")
    other = [name for name, way in _CONDITIONS if name in _WORK and _at(before, way) != _at(after, way)]
    if other:
        found.append(f"not the same work on both sides: {', '.join(other)} differ, and are part of what changed")
    if not interleaved:
        found.append(
            "two separate runs: what differs between runs of the same is not within the intervals; "
            "--interleave takes both in turn"
        )
    return found


def _figures(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[str, str, Optional[float], Optional[float]]]:
    ways = (
        ("first tick", "ms", ("summary", "first_ms")),
        ("new prompt", "ms", ("summary", "new_prompt_ms")),
        ("energy a chunk", "J", ("energy", "per_chunk_j")),
        ("resident memory", "B", ("memory", "resident_bytes")),
        ("loading", "s", ("load_s",)),
    )
    found = [(name, unit, _at(before, way), _at(after, way)) for name, unit, way in ways]
    return [entry for entry in found if entry[2] is not None or entry[3] is not None]


def _at(document: Mapping[str, Any], way: tuple[str, ...]) -> Any:
    value: Any = document
    for key in way:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _device_words(device: Mapping[str, Any]) -> str:
    gpus = ", ".join(str(gpu.get("name")) for gpu in device.get("gpus") or ())
    words = (device.get("board"), gpus, device.get("cpu"), f"{device.get('usable_cores')} cores")
    return ", ".join(str(word) for word in words if word)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
