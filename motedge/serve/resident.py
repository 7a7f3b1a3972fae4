"""What stays loaded: a bundle's policy, its reasoner, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional, Protocol, Union

from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.reasoner.events import Event, Pause
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.serve.policy_request import PolicyRequest


class ChatModel(Protocol):
    """Of `motedge.runtime.reasoner.bundle_reasoner.BundleReasoner`, what is needed here."""

    def prompt(
        self, messages: Any, images: Any = (), videos: Any = (), *, thinking: Optional[bool] = None
    ) -> ReasonerPrompt:
        """The prompt of a conversation; may be called beside a reply."""
        ...

    def steps(
        self, prompt: ReasonerPrompt, options: SamplingOptions, *, piece: Optional[int] = None
    ) -> Iterator[Union[Event, Pause]]:
        """The reply in steps, the prompt in pieces of so many tokens."""
        ...


class Resident(Protocol):
    """A loaded bundle. All but `metadata`, `generation` and the reasoner's `prompt` is called from one thread."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What clients are told when they connect; empty without a policy."""
        ...

    @property
    def model(self) -> str:
        """Name of the model, for /v1/models."""
        ...

    @property
    def generation(self) -> int:
        """Counts the bundles that the server has loaded, from 1."""
        ...

    @property
    def reasoner(self) -> Optional[ChatModel]:
        """None: the bundle has none, or it was not asked for."""
        ...

    def act(self, request: PolicyRequest, arrived_s: float, due_s: Optional[float]) -> ActionChunk:
        """The chunk for an observation that came at `arrived_s` and is due at `due_s` on `time.monotonic`."""
        ...

    def keep(self, request: PolicyRequest, chunk: ActionChunk) -> None:
        """Records what was answered, if that is wanted; called when it was."""
        ...

    def leave(self) -> None:
        """Another bundle takes over: no observation comes any more, though a reply may go on."""
        ...

    def think(self) -> bool:
        """A slice of thinking between two ticks; whether more is to be thought."""
        ...

    def close(self) -> None:
        """Frees the engines."""
        ...
