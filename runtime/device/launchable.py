"""Which sampler settings can be enqueued whole before the first step has run; the others need the loop on the host."""

from __future__ import annotations

from typing import Optional

from motedge.errors import UsageError
from motedge.runtime.request import SamplerSettings
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.step_cache.options import FixedCache


def launchable_schedule(settings: SamplerSettings) -> FlowSchedule:
    """The noise levels of settings that can be enqueued whole.

    Raises:
        UsageError: a distilled model, whose steps take fresh noise, which is drawn on the host; SeaCache.
    """
    fixed_cache(settings)
    schedule = settings.schedule()
    if not isinstance(schedule, FlowSchedule):
        raise UsageError(
            "the loop on a GPU can't sample a distilled model",
            expected="UniPC on the flow schedule",
            got="fixed noise levels with fresh noise after every step",
            fix="run it with --engine onnxruntime",
        )
    return schedule


def fixed_cache(settings: SamplerSettings) -> Optional[FixedCache]:
    """The steps to leave out; UsageError for SeaCache, which looks at the latent before every step."""
    cache = settings.step_cache
    if cache is None or isinstance(cache, FixedCache):
        return cache
    raise UsageError(
        "the loop on a GPU can't follow the SeaCache rule",
        expected="a fixed step cache, such as every:2 or steps:2,3",
        got=str(cache),
        why="all steps are enqueued before the first has run, and the rule needs the latent of each",
        fix="take fixed steps, or --engine onnxruntime",
    )
