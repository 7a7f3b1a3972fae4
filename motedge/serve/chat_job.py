"""One question to the reasoner on its way through the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Optional

from motedge.runtime.reasoner.events import Event
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.serve.resident import Resident


@dataclass(eq=False)
class ChatJob:
    """`emit` gets each event of the reply, then None; or `fail` gets an error. Both are called from any thread."""

    prompt: ReasonerPrompt
    options: SamplingOptions
    emit: Callable[[Optional[Event]], None]
    fail: Callable[[BaseException], None]
    # Whose reasoner made the prompt: another bundle's tokens may mean something else
    resident: Resident
    # Set by whoever wants the rest no more
    cancelled: bool = field(default=False)
