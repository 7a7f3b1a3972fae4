"""The policy: what a DROID robot or a vehicle sees, its state and an instruction to a chunk of actions."""

from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.policy.loader import load_policy
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.policy import Policy

__all__ = ["ActionChunk", "GpuOptions", "Observation", "Policy", "load_policy"]
