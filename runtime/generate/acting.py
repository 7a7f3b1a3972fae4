"""The action rows of a request: whose they are, how they are normalised, and what its result is called."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import ArrayLike

from motedge.errors import BundleError, ObservationError, UsageError
from motedge.runtime.actions.normalise import ActionNormaliser
from motedge.runtime.actions.rows import ActionRows, arrange_rows
from motedge.runtime.engine import FloatArray
from motedge.runtime.generate.request import GenerateRequest
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.policy.droid import RAW_DIM, flip_gripper
from motedge.runtime.policy.embodiments import Embodiment, find_embodiment
from motedge.runtime.tables import Tables

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acting:
    """Whose actions a request has."""

    robot: Embodiment
    # Used channels
    raw_dim: int
    normaliser: ActionNormaliser
    # Whether the normaliser leads to raw actions: there are statistics, or the model's are raw
    raw: bool
    # Whether the model counts the gripper from the other end than the robot: the released DROID policies
    flips_gripper: bool = False

    @classmethod
    def of(cls, request: GenerateRequest, variant: str) -> Acting:
        """The embodiment of a request, for a model of `variant` ("policy-droid": its policies' actions).

        Raises:
            ObservationError: an unknown embodiment.
            UsageError: it does not tell how many channels there are; statistics for actions that are not normalised.
            DataError: statistics that the method has no use for.
        """
        robot = find_embodiment(request.embodiment or "")
        policy = variant.startswith("policy")
        known = robot.raw_dim if policy else robot.base_raw_dim or robot.raw_dim
        raw_dim = request.raw_dim if request.raw_dim is not None else known or _width(request)
        if raw_dim is None:
            raise UsageError(
                f"embodiment {robot.name!r} does not tell how many channels an action has",
                expected=f"one of {sorted(layout.width for layout in robot.layouts.values())}"
                if robot.layouts
                else "the number of channels that it was trained with",
                fix="give raw_dim",
            )
        method = robot.normaliser if policy else robot.base_normaliser or robot.normaliser
        flips = policy and robot.protocol == "droid" and raw_dim == RAW_DIM
        if request.stats is not None:
            # Base models were trained on actions cut off at -1 and 1
            normaliser = ActionNormaliser(_method(robot, method), request.stats.first(raw_dim), clamp=not policy)
            return cls(robot, raw_dim, normaliser, True, flips)
        if method != "none":
            _log.warning("actions of %s are in the model's normalised space: no statistics were given", robot.name)
        return cls(robot, raw_dim, ActionNormaliser("none"), method == "none", flips)

    def arrange(self, request: GenerateRequest, frames: int, fps: float, shape: GenerateShape) -> ActionRows:
        """The rows of a request of that many frames.

        Raises:
            UsageError: too few actions for the frames, or a number of rows that the graphs don't take.
            ContractError: actions of another width, NaN or infinity.
        """
        given = request.actions
        if given is not None:
            given = _first(self._model_actions(given), frames - 1)
        state = request.state
        if state is None and request.mode == "policy" and self.robot.state_row:
            _log.warning(
                "no state is given: models are trained on %s with the robot's state in row 0, and act worse without it",
                self.robot.name,
            )
        # A state row makes what diffusers calls policy the framework's "wam"; without one both have the same rows
        rows = arrange_rows(
            "wam" if request.mode == "policy" else request.mode,
            frames=frames,
            raw_dim=self.raw_dim,
            width=shape.width,
            fps_action=fps,
            actions=given,
            state=None if state is None else self._model_actions(state),
        )
        shape.require_rows(len(rows.action_clean))
        return rows

    def restore(self, actions: FloatArray) -> FloatArray:
        """Raw actions of the model's, where that can be."""
        restored = self.normaliser.restore(actions)
        return flip_gripper(restored) if self.flips_gripper else restored

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and units of the channels; empty where they are not known."""
        try:
            layout = self.robot.find_layout(self.raw_dim)
        except ObservationError:
            return (), ()
        return layout.fields, layout.units

    def require_weights(self, tables: Tables) -> None:
        """Refuses an embodiment that the model was never trained for.

        Raises:
            BundleError: its projections hold NaN, or nothing but zeros.
        """
        weights = tables.embodiment_weights(self.robot.domain_id, self.raw_dim)
        parts = (weights.in_weight, weights.in_bias, weights.out_weight, weights.out_bias)
        if all(np.isfinite(part).all() for part in parts) and weights.in_weight.any() and weights.out_weight.any():
            return
        raise BundleError(
            f"the model has no action weights for embodiment {self.robot.name!r} (domain {self.robot.domain_id})",
            got="NaN or infinity" if not all(np.isfinite(part).all() for part in parts) else "zeros alone",
            why="releases of Cosmos3-Edge before 2026-07-16 came without action weights",
            fix="take a newer checkpoint, or another embodiment",
        )

    def _model_actions(self, actions: ArrayLike) -> FloatArray:
        """The model's of raw actions or states [..., raw_dim]; another width is for arrange_rows to name."""
        raw = np.asarray(actions, np.float64)
        if raw.shape[-1:] != (self.raw_dim,):
            return raw.astype(np.float32)
        made = self.normaliser.normalise(raw)
        return flip_gripper(made) if self.flips_gripper else made


def _method(robot: Embodiment, published: Optional[str]) -> str:
    """How actions for which there are statistics are normalised; a guess is said aloud.

    Raises:
        UsageError: they are not.
    """
    if published == "none":
        raise UsageError(
            f"actions of {robot.name!r} are not normalised", got="statistics", fix="leave stats out: they are raw"
        )
    if published is None:
        _log.warning("how actions of %s are normalised is not published: by quantiles, as most are", robot.name)
    return published or "quantile"


def _width(request: GenerateRequest) -> Optional[int]:
    given = np.asarray(request.actions) if request.actions is not None else None
    return int(given.shape[1]) if given is not None and given.ndim == 2 else None


def _first(actions: FloatArray, count: int) -> FloatArray:
    """As many actions as the video has steps; what is over is cut off, which is said aloud.

    Raises:
        UsageError: there are fewer.
    """
    if actions.ndim == 2 and len(actions) < count:
        raise UsageError(
            "too few actions for the video",
            expected=f"{count} for {count + 1} frames",
            got=len(actions),
            fix=f"repeat the last action, or ask for {len(actions) + 1} frames",
        )
    if actions.ndim == 2 and len(actions) > count:
        _log.warning(
            "%d actions are given, the first %d are taken: the video has %d frames", len(actions), count, count + 1
        )
    return actions[:count]
