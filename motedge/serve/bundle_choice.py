"""Which bundle is served, and how its engines are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.serve.recording import RecordingChoice

# Of warm-up ticks; the first robot's instruction, if it is known, saves its first tick the prefill
WARM_UP_INSTRUCTION = "wait"


@dataclass(frozen=True)
class BundleChoice:
    """Everything that a reload needs too."""

    bundle: Path
    # What load_policy and load_reasoner take alike: engine, variant, recipe, check, threads, gpu
    engines: Mapping[str, Any] = field(default_factory=dict)
    # What load_policy takes besides: embodiment, seed, settings of the sampler
    policy: Mapping[str, Any] = field(default_factory=dict)
    serve_policy: bool = True
    # Whether questions are answered at /v1/chat/completions
    chat: bool = False
    # Tokens of a question and its reply; None as of load_reasoner
    capacity: Optional[int] = None
    # The reasoner writes the policy's prompt; None: it does not
    reason: Optional[ReasonOptions] = None
    # Of requests that give none themselves; None: ticks have none
    deadline_ms: Optional[float] = None
    # Operating points (TOML); None: from the policy's settings
    ladder: Optional[Path] = None
    warm_up_instruction: str = WARM_UP_INSTRUCTION
    # None: ticks are not recorded
    recording: Optional[RecordingChoice] = None

    def __post_init__(self) -> None:
        if not (self.serve_policy or self.chat):
            raise UsageError("nothing to serve", expected="the policy, or --chat")
        if not self.serve_policy and (self.reason is not None or self.deadline_ms is not None):
            raise UsageError("a deadline and a reasoner's plan are the policy's", got="no policy")
        if self.chat and self.reason is not None:
            raise UsageError(
                "a reasoner that writes the policy's prompt can't answer questions besides",
                why="it writes one reply at a time: a question would hold up the plan, or need a second copy in memory",
                fix="leave out --chat or --reason, or start a second server for the questions",
            )
        if self.reason is not None and self.reason.within_ticks and self.deadline_ms is not None:
            raise UsageError(
                "a policy that thinks within its ticks can't keep a deadline",
                expected="a reasoner that is given a slice between two ticks, or one in the background",
                got="--reason and --deadline-ms, and no --reason-slice",
                fix="--reason-slice N, --reason-slice-ms N or --reason-background; or leave out --deadline-ms",
            )
        if self.ladder is not None and self.deadline_ms is None:
            raise UsageError("--ladder is for ticks with a deadline", expected="--deadline-ms beside it")
