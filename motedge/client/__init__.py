"""The robot's side: chunks of actions in flight, and the envelope that every action passes before the robot.

Needs numpy alone (and tomli below Python 3.11), nothing of the runtime: the policy may run elsewhere. `RemotePolicy`,
which asks a policy server, needs msgpack and websockets besides: pip install "motedge[client]".
"""

from motedge.client.camera_observation import camera_observation
from motedge.client.chunk_stream import ChunkStream
from motedge.client.clock import Clock, MonotonicClock, SimulatedClock
from motedge.client.droid_observation import droid_observation
from motedge.client.envelope import ActionEnvelope, Verdict
from motedge.client.remote_chunk import RemoteChunk
from motedge.client.remote_options import RemoteOptions
from motedge.client.remote_policy import RemotePolicy
from motedge.client.stream_options import StreamOptions
from motedge.client.timed_action import TimedAction
from motedge.client.token import read_token
from motedge.client.worker import SimulatedWorker, ThreadWorker

__all__ = [
    "ActionEnvelope",
    "ChunkStream",
    "Clock",
    "MonotonicClock",
    "RemoteChunk",
    "RemoteOptions",
    "RemotePolicy",
    "SimulatedClock",
    "SimulatedWorker",
    "StreamOptions",
    "ThreadWorker",
    "TimedAction",
    "Verdict",
    "camera_observation",
    "droid_observation",
    "read_token",
]
