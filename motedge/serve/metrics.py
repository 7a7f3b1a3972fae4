"""What a server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from motedge.client import protocol
from motedge.errors import MissingPackageError
from motedge.runtime.reasoner.events import Finished, Started

# Seconds; from a tenth of a millisecond, which a message takes, to a tick of the largest model
_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)
ANSWERED = "answered"
_OUTCOMES = (ANSWERED, *protocol.ERROR_CODES)
CHAT_OUTCOMES = ("stop", "length", "cancelled", "refused", "failed")


class ServeMetrics:
    """Counters and histograms of one server, in a registry of their own. May be used from any thread."""

    def __init__(self) -> None:
        """Raises MissingPackageError without prometheus_client."""
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingPackageError("prometheus_client", extra="serve", purpose="to count what is served") from error
        self._prometheus, self.registry = prometheus, prometheus.CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry}
        self._requests = prometheus.Counter(
            "motedge_requests", "Observations, by what became of them", ["outcome"], **kept
        )
        self._missed = prometheus.Counter(
            "motedge_deadlines_missed", "Requests whose answer was not there, or not fresh, by their deadline", **kept
        )
        self._held = prometheus.Counter("motedge_held_chunks", "Answers with what was left of an earlier chunk", **kept)
        self._stages = prometheus.Histogram(
            "motedge_stage_seconds", "Time of each stage of a request", ["stage"], buckets=_BUCKETS_S, **kept
        )
        self._chats = prometheus.Counter(
            "motedge_chats", "Questions to the reasoner, by what became of them", ["outcome"], **kept
        )
        self._tokens = prometheus.Counter("motedge_chat_tokens", "Tokens of the reasoner", ["kind"], **kept)
        self._refused = prometheus.Counter(
            "motedge_refused_connections", "Connections and requests that were refused", ["cause"], **kept
        )
        self._reloads = prometheus.Counter("motedge_reloads", "Reloads of the bundle", ["outcome"], **kept)
        # So that a rate can be computed from the first one on
        for outcome in _OUTCOMES:
            self._requests.labels(outcome)
        for outcome in CHAT_OUTCOMES:
            self._chats.labels(outcome)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that asks for its value when it is read."""
        self._prometheus.Gauge(f"motedge_{name}", text, registry=self.registry).set_function(value)

    def request(self, code: Optional[str], *, met: Optional[bool], held: bool = False) -> None:
        """One observation was answered; `code` of an error, or None."""
        self._requests.labels(code or ANSWERED).inc()
        if met is False:
            self._missed.inc()
        if held:
            self._held.inc()

    def stages(self, stages_ms: Mapping[str, float]) -> None:
        """Times of stages, by their name with `_ms` at the end."""
        for name, value_ms in stages_ms.items():
            self._stages.labels(name[:-3] if name.endswith("_ms") else name).observe(value_ms / 1e3)

    def chat(self, outcome: str, started: Optional[Started] = None, finished: Optional[Finished] = None) -> None:
        """One question was answered, or not."""
        self._chats.labels(outcome).inc()
        if started is not None:
            self._tokens.labels("prompt").inc(started.prompt_tokens)
        if finished is not None:
            self._tokens.labels("reply").inc(len(finished.token_ids))

    def refused(self, cause: str) -> None:
        """A connection or a request was refused: "token", "origin", "host", "connections", "strangers", "http"."""
        self._refused.labels(cause).inc()

    def reload(self, outcome: str) -> None:
        """The bundle was loaded again, or not."""
        self._reloads.labels(outcome).inc()

    def text(self) -> tuple[bytes, str]:
        """All of it in Prometheus' text format, and its content type."""
        text: bytes = self._prometheus.generate_latest(self.registry)
        return text, str(self._prometheus.CONTENT_TYPE_LATEST)
