"""The sampling defaults that a bundle's policy starts with. Source: NVIDIA's DROID policy server, per family."""

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
    return {
        "embodiment": policy.domain_name if policy else DROID_DOMAIN,
        "steps": STEPS,
        "shift": SHIFT,
        "guidance": GUIDANCE,
        "guidance_interval": GUIDANCE_INTERVALS.get(checkpoint.family),
        "fps": policy.conditioning_fps if policy else shapes.fps,
        "chunk": policy.action_chunk_size if policy else min(DROID_CHUNK, shapes.actions - 1),
        "prompt_format": "json",
    }
