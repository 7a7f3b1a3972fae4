"""The policy block of checkpoint.json: how a policy checkpoint was post-trained to act."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.errors import CheckpointError


@dataclass(frozen=True)
class PolicyMetadata:
    """What the policy was trained for."""

    # Actions per request
    action_chunk_size: int
    # Frames and actions per second that the positions are made with
    conditioning_fps: float
    # Embodiment whose projections are used
    domain_name: str


def read_policy(root: Path) -> PolicyMetadata | None:
    """The policy block, or None for a base checkpoint (no file, or no such block).

    Raises:
        CheckpointError: the block is there and incomplete or of wrong types.
    """
    path = root / "checkpoint.json"
    if not path.exists():
        return None
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        policy = raw.get("policy")
        if not policy:
            return None
        return PolicyMetadata(
            action_chunk_size=int(policy["action_chunk_size"]),
            conditioning_fps=float(policy["conditioning_fps"]),
            domain_name=str(policy["domain_name"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} has no usable policy block",
            expected="policy: {action_chunk_size, conditioning_fps, domain_name}",
            got=f"{type(error).__name__}: {error}",
            fix="fetch the checkpoint again",
        ) from error
