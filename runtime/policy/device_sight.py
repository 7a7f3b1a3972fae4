"""Which way an observation's images take to the device: one kernel over the cameras' frames, or numpy."""

from __future__ import annotations

from typing import Optional

from motedge.runtime.cuda import Cuda
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.kernels import KernelLibrary
from motedge.runtime.policy.device_tick import HostSight, Sight
from motedge.runtime.policy.shape import PolicyShape


def make_sight(
    cuda: Cuda, kernels: Optional[KernelLibrary], encoder: ImageEncoder, shape: PolicyShape
) -> tuple[Sight, Optional[str]]:
    """The way, and a note where it is not the fast one."""
    return HostSight(encoder, shape), None
