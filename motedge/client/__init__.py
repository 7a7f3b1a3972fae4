"""The robot's side: chunks of actions in flight, and the envelope that every action passes before the robot.

Needs numpy alone (and tomli below Python 3.11), nothing of the runtime: the policy may run elsewhere.
"""

from motedge.client.chunk_stream import ChunkStream
from motedge.client.clock import Clock, MonotonicClock, SimulatedClock
from motedge.client.envelope import ActionEnvelope, Verdict
from motedge.client.stream_options import StreamOptions
from motedge.client.timed_action import TimedAction
from motedge.client.worker import SimulatedWorker, ThreadWorker

__all__ = [
    "ActionEnvelope",
    "ChunkStream",
    "Clock",
    "MonotonicClock",
    "SimulatedClock",
    "SimulatedWorker",
    "StreamOptions",
    "ThreadWorker",
    "TimedAction",
    "Verdict",
]
