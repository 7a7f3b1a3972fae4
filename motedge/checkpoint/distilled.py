"""How a checkpoint says that it is distilled: the fixed noise levels at which its few steps are sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motedge.errors import CheckpointError

# Where diffusers' modular pipelines keep a pipeline's configuration, and where the sampler's own is
INDEX, SCHEDULER = "modular_model_index.json", "scheduler/scheduler_config.json"
# What the published 4-step variants are sampled at (cosmos-framework at 5eee9ed)
PUBLISHED_SIGMAS = (1.0, 0.9375, 0.8333333333333334, 0.625)
# Fresh noise after every step; the only kind that was published
_SAMPLE_TYPE = "sde"


def read_distilled_sigmas(root: Path) -> tuple[float, ...] | None:
    """The noise levels of a distilled checkpoint, falling, without the last one of 0; None for any other.

    Raises:
        CheckpointError: it says that it is distilled and not how, or says it twice and differently.
    """
    index, scheduler = _read(root / INDEX), _read(root / SCHEDULER)
    found: dict[str, tuple[float, ...]] = {}
    if index.get("distilled_sigmas"):
        found[INDEX] = _levels(root / INDEX, "distilled_sigmas", index["distilled_sigmas"])
    sampler = scheduler.get("fixed_step_sampler_config")
    if sampler:
        path = root / SCHEDULER
        if not isinstance(sampler, Mapping) or sampler.get("sample_type", _SAMPLE_TYPE) != _SAMPLE_TYPE:
            raise _wrong(path, "fixed_step_sampler_config", f"t_list and sample_type {_SAMPLE_TYPE!r}", sampler)
        found[SCHEDULER] = _levels(path, "fixed_step_sampler_config.t_list", sampler.get("t_list"))
    if not found:
        if index.get("is_distilled"):
            raise _wrong(root / INDEX, "distilled_sigmas", "the noise levels, for is_distilled is true", None)
        return None
    first, *others = found.values()
    if any(not _near(first, other) for other in others):
        raise CheckpointError(
            "the checkpoint names two lists of noise levels",
            expected=f"the same in {' and '.join(found)}",
            got=" and ".join(str(list(levels)) for levels in found.values()),
            fix="fetch the checkpoint again",
        )
    return first


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON", got=str(error), fix="fetch the checkpoint again") from error
    return value if isinstance(value, dict) else {}


def _levels(path: Path, name: str, value: object) -> tuple[float, ...]:
    expected = "numbers that fall, the first at most 1, the last above 0 (a last one of 0 may follow)"
    numbers = isinstance(value, list) and all(
        isinstance(level, (int, float)) and not isinstance(level, bool) for level in value
    )
    if not numbers or not isinstance(value, list):
        raise _wrong(path, name, expected, value)
    levels = tuple(float(level) for level in value)
    if levels and levels[-1] == 0:
        levels = levels[:-1]
    if not levels or not 0 < levels[0] <= 1 or any(not a > b for a, b in zip(levels, (*levels[1:], 0.0))):
        raise _wrong(path, name, expected, value)
    return levels


def _near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(abs(one - other) < 1e-6 for one, other in zip(a, b))


def _wrong(path: Path, name: str, expected: str, got: object) -> CheckpointError:
    what = f"{path}: {name} is wrong"
    return CheckpointError(what, expected=expected, got=repr(got), fix="fetch the checkpoint again")
