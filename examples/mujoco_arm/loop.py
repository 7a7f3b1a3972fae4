"""The arm's loop: chunks in flight, every action through the envelope, the world on the same clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from examples.mujoco_arm.arm import START, Cameras, SimulatedArm
from motedge.client import ActionEnvelope, ChunkStream, Clock, StreamOptions, ThreadWorker, droid_observation
from motedge.client.stream_report import Durations
from motedge.client.worker import Worker

RATE_HZ = 15.0
SCHEMA = "motedge.mujoco_arm/v1"
_SERVER = ("server", "family", "variant", "checkpoint", "bundle_sha256")


@dataclass(frozen=True, eq=False)
class Moment:
    """The beginning of a period."""

    time_s: float
    # Positions of everything, MuJoCo's qpos
    positions: NDArray[np.float64]
    # [8]: measured, wanted by the policy, and commanded after the envelope
    state: NDArray[np.float64]
    wanted: NDArray[np.float64]
    commanded: NDArray[np.float64]
    # As TimedAction.kind and Verdict.kind
    action: str
    verdict: str


@dataclass(frozen=True, eq=False)
class Asked:
    """One request."""

    time_s: float
    pictures: Mapping[str, NDArray[np.uint8]]
    round_trip_ms: float
    infer_ms: float


class ArmLoop:
    """Drives an arm by a policy for some time."""

    def __init__(
        self,
        policy: Any,
        arm: SimulatedArm,
        prompt: str,
        options: StreamOptions,
        clock: Clock,
        renderer: str = "opengl",
    ) -> None:
        """Sets it up.

        Args:
            policy: `motedge.client.RemotePolicy`.
            arm: at START.
            prompt: what to do, in words.
            options: rate, horizon and lead of the chunks.
            clock: the machine's, or a simulated one.
            renderer: as `Cameras` takes it.
        """
        self._policy, self._arm, self._prompt = policy, arm, prompt
        self._options, self._clock = options, clock
        self._cameras = Cameras(arm, renderer=renderer)
        self._envelope = ActionEnvelope.for_embodiment("droid_lerobot")
        self._envelope.reset(START)
        self._seeing = Durations()
        self._seen: tuple[float, Any] = (0.0, {})
        self._stream: Optional[ChunkStream] = None
        self.moments: list[Moment] = []
        self.asked: list[Asked] = []
        self.ended = "at the end"

    def run(self, seconds: float, worker: Optional[Worker] = None) -> None:
        """Drives; what was driven stays if it ends early.

        Args:
            seconds: how long.
            worker: where pictures are drawn and the policy is asked; None: a thread.

        Raises:
            ChunkGapError, ChunkSourceError: no first chunk.
        """
        worker = worker or ThreadWorker(self._clock)
        with ChunkStream(self._ask, self._observe, self._options, clock=self._clock, worker=worker) as stream:
            self._stream = stream
            try:
                stream.wait_first(60.0)
                self._drive(stream, seconds)
            except KeyboardInterrupt:
                self.ended = "interrupted"
            finally:
                # The renderer belongs to the worker's thread
                worker.start(self._cameras.close)

    def report(self) -> dict[str, Any]:
        """JSON form."""
        stream = self._stream.report().to_dict() if self._stream is not None else None
        round_trip = Durations()
        for asked in self.asked:
            round_trip.add(asked.round_trip_ms / 1e3)
        lag = [np.abs(moment.state[:7] - moment.commanded[:7]).max() for moment in self.moments]
        return {
            "schema": SCHEMA,
            "server": {key: self._policy.metadata.get(key) for key in _SERVER},
            "connection": {"reconnects": self._policy.reconnects, "late_answers": self._policy.late_answers},
            "ended": self.ended,
            "seconds": round(self.moments[-1].time_s + 1 / RATE_HZ, 3) if self.moments else 0.0,
            "round_trip_ms": round_trip.summary_ms(),
            "pictures_ms": self._seeing.summary_ms(),
            # From what was commanded to where the arm then is, before the next command
            "largest_lag_rad": float(max(lag, default=0.0)),
            "stream": stream,
            "envelope": self._envelope.counters.to_dict(),
        }

    def _drive(self, stream: ChunkStream, seconds: float) -> None:
        begun_s = self._clock.now_s()
        last_s = begun_s - self._options.period_s
        while (now_s := self._clock.now_s()) - begun_s < seconds:
            self._arm.advance_to(now_s - begun_s)
            action = stream.next_action()
            if action.error is not None:
                print(f"no new chunk: {action.error}", file=sys.stderr)
            verdict = self._envelope.apply(action.row, now_s - last_s)
            state, last_s = self._arm.state(), now_s
            self._arm.command(verdict.action)
            positions = self._arm.data.qpos.copy()
            self.moments.append(
                Moment(now_s - begun_s, positions, state, action.row, verdict.action, action.kind, verdict.kind)
            )
            self._clock.sleep(stream.next_due_s() - self._clock.now_s())

    def _observe(self) -> dict[str, Any]:
        began_s = time.perf_counter()
        pictures, positions, at_s = self._cameras.pictures()
        self._seeing.add(time.perf_counter() - began_s)
        self._seen = at_s, pictures
        state = self._arm.state(positions)
        views: dict[str, Any] = dict(pictures)
        return droid_observation(state[:7], float(state[7]), self._prompt, **views)

    def _ask(self, observation: Any, committed: Any) -> Any:
        chunk = self._policy.act(observation)
        infer_ms = float(chunk.server_timing.get("infer_ms", 0.0))
        self.asked.append(Asked(*self._seen, chunk.round_trip_ms, infer_ms))
        return chunk
