"""From clues to a target: the part number decides, then the board's or card's name, then memory among what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.targets.catalog import PowerMode, SoftwareRow, Target, targets
from motedge.targets.detect.clues import Clues, gather

CERTAIN, LIKELY, AMBIGUOUS, UNKNOWN = "certain", "likely", "ambiguous", "unknown"
# The kernel sees less than a module has: firmware keeps 2.7 % of a T5000 and 14 % of a 4 GB module (derived)
_SEEN_LEAST, _SEEN_MOST = 0.82, 1.01


@dataclass(frozen=True)
class Candidate:
    """A device that this machine may be."""

    target: str
    # Why it may be, or why it is listed at all
    reason: str


@dataclass(frozen=True)
class Detection:
    """Which device of the catalogue this machine is."""

    # None where it is none of them, or one can't say which
    target: Optional[str]
    # CERTAIN, LIKELY, AMBIGUOUS or UNKNOWN
    certainty: str
    reason: str
    # What else it may be, best first
    candidates: tuple[Candidate, ...]
    # Release of the system software, and its mode of power, as far as the catalogue knows them
    software: Optional[SoftwareRow]
    power_mode: Optional[PowerMode]
    notes: tuple[str, ...]
    clues: Clues


def detect(root: Path = Path("/")) -> Detection:
    """Looks at this machine. Never fails for what a machine lacks: that is in `notes` and `clues.problems`."""
    return decide(gather(root), targets())


def decide(clues: Clues, known: Mapping[str, Target]) -> Detection:
    """The device that fits the clues."""
    notes: list[str] = []
    found, certainty, reason = _device(clues, known, notes)
    if certainty in (CERTAIN, LIKELY):
        target = known[found[0].target]
        return Detection(
            target=target.id,
            certainty=certainty,
            reason=reason,
            candidates=(),
            software=_software(clues, target, notes),
            power_mode=_mode(clues, target, notes),
            notes=tuple(notes),
            clues=clues,
        )
    return Detection(None, certainty, reason, tuple(found), None, None, tuple(notes), clues)


def _device(clues: Clues, known: Mapping[str, Target], notes: list[str]) -> tuple[list[Candidate], str, str]:
    by_part = [t for t in known.values() if set(t.signs.parts) & set(clues.parts)]
    if by_part:
        # A carrier board of another maker may say anything in `model`
        reason = f"module {', '.join(clues.parts)} in the device tree"
        _check_memory(clues, by_part[0], notes)
        return _candidates(by_part, reason), CERTAIN, reason
    if clues.parts:
        notes.append(f"module {', '.join(clues.parts)} is not in the catalogue")
    model = (clues.model or "").lower()
    by_model = [t for t in known.values() if any(words.lower() in model for words in t.signs.models)]
    if by_model:
        return _narrow(clues, by_model, f"the device tree calls it {clues.model!r}")
    if clues.gpus:
        return _by_gpu(clues, known, notes)
    if model and "nvidia" in model:
        return [], UNKNOWN, f"the device tree calls it {clues.model!r}, which is none of the catalogue"
    cpu = [t for t in known.values() if t.kind == "cpu"]
    broken = any(problem.startswith("nvidia-smi") for problem in clues.problems)
    reason = "nvidia-smi is here and names no GPU" if broken else "neither an NVIDIA GPU nor a Jetson module is here"
    return _candidates(cpu, reason), LIKELY if broken else CERTAIN, reason


def _by_gpu(clues: Clues, known: Mapping[str, Target], notes: list[str]) -> tuple[list[Candidate], str, str]:
    gpu = clues.gpus[0]
    name = _plain(gpu.name)
    if len(clues.gpus) > 1:
        others = ", ".join(dict.fromkeys(other.name for other in clues.gpus[1:]))
        notes.append(f"{len(clues.gpus)} GPUs: the first decides, and figures are for one (others: {others})")
    named = [t for t in known.values() if name in map(_plain, t.signs.gpus)]
    if len(named) == 1:
        return _candidates(named, "named"), CERTAIN, f"nvidia-smi calls it {gpu.name!r}"
    if named:
        return _narrow(clues, named, f"nvidia-smi calls it {gpu.name!r}")
    alike = [t for t in known.values() if str(t.compute_capability) == gpu.compute_capability]
    reason = f"compute capability {gpu.compute_capability}, as this machine: engines run, but memory and speed differ"
    cpu = [t for t in known.values() if t.kind == "cpu"]
    found = [*_candidates(alike, reason), *_candidates(cpu, "always possible")]
    return found, UNKNOWN, f"{gpu.name} is not in the catalogue; describe it in a .toml file of your own"


def _narrow(clues: Clues, found: Sequence[Target], reason: str) -> tuple[list[Candidate], str, str]:
    """Those whose memory fits what the kernel sees."""
    if clues.memory_bytes is None:
        return _candidates(found, reason), LIKELY if len(found) == 1 else AMBIGUOUS, f"{reason}; memory is not known"
    fitting = [t for t in found if _fits(clues.memory_bytes, t)]
    seen = f"{clues.memory_bytes / 1e9:.1f} GB of memory"
    if not fitting:
        return [], UNKNOWN, f"{reason}, but no such device of the catalogue shows {seen}"
    if len(fitting) == 1:
        return _candidates(fitting, reason), LIKELY, f"{reason}, and {seen} fit"
    return _candidates(fitting, f"{reason}, and {seen} fit"), AMBIGUOUS, f"{reason}: several devices show {seen}"


def _fits(memory_bytes: int, target: Target) -> bool:
    total = target.memory_gb.value
    return total is None or _SEEN_LEAST * total <= memory_bytes / 1e9 <= _SEEN_MOST * total


def _check_memory(clues: Clues, target: Target, notes: list[str]) -> None:
    if clues.memory_bytes is not None and not _fits(clues.memory_bytes, target):
        notes.append(
            f"the kernel sees {clues.memory_bytes / 1e9:.1f} GB, which does not fit the {target.memory_gb.value} GB of "
            f"{target.name}: a carve-out, a limit of the kernel's, or a changed module"
        )


def _software(clues: Clues, target: Target, notes: list[str]) -> Optional[SoftwareRow]:
    if clues.l4t is None:
        # On other machines nothing says which release it is; `clues.libraries` says what is installed
        return None
    number = _number(clues.l4t)
    rows = [row for row in target.software if row.l4t is not None and _number(row.l4t) <= number]
    # Patches of one release share the libraries; another release does not
    same = [row for row in rows if _number(row.l4t or "")[:2] == number[:2]]
    if not same:
        notes.append(f"Jetson Linux {clues.l4t} is in no row of {target.id}: its TensorRT is not known")
        return None
    if _number(same[-1].l4t or "") != number:
        notes.append(f"Jetson Linux {clues.l4t} is newer than {same[-1].l4t}, the nearest row of the catalogue")
    _check_library(clues, same[-1], notes)
    return same[-1]


def _check_library(clues: Clues, row: SoftwareRow, notes: list[str]) -> None:
    installed = dict(clues.libraries).get("tensorrt")
    if installed is None or row.tensorrt is None or not installed[0].isdigit():
        return
    if all(_number(installed)[:2] != _number(version)[:2] for version in (row.tensorrt, *row.accepts)):
        notes.append(f"this Python has TensorRT {installed}; {row.release} comes with {row.tensorrt}")


def _mode(clues: Clues, target: Target, notes: list[str]) -> Optional[PowerMode]:
    if clues.power_mode is None:
        return None
    wanted = _plain_mode(clues.power_mode)
    for mode in target.power_modes:
        if _plain_mode(mode.name) == wanted:
            return mode
    notes.append(f"power mode {clues.power_mode} is not in the catalogue: figures are for the highest mode")
    return None


def _candidates(found: Sequence[Target], reason: str) -> list[Candidate]:
    return [Candidate(target.id, reason) for target in found]


def _plain(name: str) -> str:
    return name.lower().replace("nvidia ", "").strip()


def _plain_mode(name: str) -> str:
    # nvpmodel's files say MODE_30W on some boards and 30W on others
    return name.upper().replace("MODE_", "").replace(" ", "_")


def _number(version: str) -> tuple[int, ...]:
    """(39, 2) for "39.2.0": what is not written counts as 0."""
    parts = [int(part) for part in version.split(".") if part.isdigit()]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
