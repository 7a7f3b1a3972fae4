"""Ticks with a deadline: a ladder of operating points, measured latencies, a watchdog, counters that hide nothing."""

from motedge.runtime.deadline.counters import DeadlineCounters
from motedge.runtime.deadline.errors import DeadlineMissedError
from motedge.runtime.deadline.ladder import Ladder
from motedge.runtime.deadline.operating_point import OperatingPoint
from motedge.runtime.deadline.options import DeadlineOptions
from motedge.runtime.deadline.policy import DeadlinePolicy, with_deadlines

__all__ = [
    "DeadlineCounters",
    "DeadlineMissedError",
    "DeadlineOptions",
    "DeadlinePolicy",
    "Ladder",
    "OperatingPoint",
    "with_deadlines",
]
