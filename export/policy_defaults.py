"""The sampling defaults that a bundle's policy starts with. Source: NVIDIA's DROID policy server, per family.

Guidance is that server's alone: cosmos-framework at 5eee9ed samples the actions of other embodiments without.
"""

from __future__ import annotations

from typing import Any

from motedge.checkpoint.reader import Checkpoint
from motedge.export.shapes import ShapeSet

STEPS, SHIFT, GUIDANCE = 4, 5.0, 3.0
# Edge is served with guidance at t = 999 only (5 forwards); Nano and Super at every step (8)
GUIDANCE_INTERVALS = {"edge": [960.0, 1001.0]}
DROID_DOMAIN, DROID_CHUNK = "droid_lerobot", 32


def policy_defaults(checkpoint: Checkpoint, shapes: ShapeSet) -> dict[str, Any]:
    """The manifest's policy block."""
    policy = checkpoint.policy
    sampler: dict[str, Any] = {
        "steps": STEPS,
        "shift": SHIFT,
        "guidance": GUIDANCE,
        "guidance_interval": GUIDANCE_INTERVALS.get(checkpoint.family),
    }
    if policy is not None and policy.domain_name != DROID_DOMAIN:
        sampler.update(guidance=1.0, guidance_interval=None)
    levels = checkpoint.distilled_sigmas
    if levels is not None:
        # Guidance is part of a distilled model's weights
        sampler = {"steps": len(levels), "shift": 1.0, "guidance": 1.0, "guidance_interval": None}
        sampler["distilled_sigmas"] = list(levels)
    return {
        "embodiment": policy.domain_name if policy else DROID_DOMAIN,
        **sampler,
        "fps": policy.conditioning_fps if policy else shapes.fps,
        "chunk": policy.action_chunk_size if policy else max(0, min(DROID_CHUNK, shapes.actions - 1)),
        "prompt_format": "json",
    }
