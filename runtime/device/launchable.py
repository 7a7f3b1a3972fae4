"""Which sampler settings can be enqueued whole before the first step has run; the others are solved on the host."""

from __future__ import annotations

from typing import Optional

from motedge.errors import InternalError
from motedge.runtime.distilled import DistilledSchedule
from motedge.runtime.request import SamplerSettings
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.step_cache.options import FixedCache, SeaCache


def host_reason(settings: SamplerSettings) -> Optional[str]:
    """Why every step needs the host; None where all can be enqueued at once."""
    if isinstance(settings.schedule(), DistilledSchedule):
        return "a distilled model takes fresh noise after every step, which is drawn on the host"
    if isinstance(settings.step_cache, SeaCache):
        return "SeaCache looks at the latent before every step"
    return None


def launchable_schedule(settings: SamplerSettings) -> FlowSchedule:
    """The noise levels of settings that can be enqueued whole."""
    schedule = settings.schedule()
    if host_reason(settings) is not None or not isinstance(schedule, FlowSchedule):
        raise InternalError("settings that need the host were to be enqueued whole")
    return schedule


def fixed_cache(settings: SamplerSettings) -> Optional[FixedCache]:
    """The steps to leave out; of settings that can be enqueued whole."""
    return settings.step_cache if isinstance(settings.step_cache, FixedCache) else None
