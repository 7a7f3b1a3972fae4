"""Action rows of a request: which are given and which are to be generated, and when in time they stand.

Rows are, in this order: history (past actions, clean), the current state (clean; optional), and the actions. There are
as many actions as the video has steps from frame to frame, or, where the video is subsampled, a whole multiple of it:
then the video runs at a lower rate than the actions. The four modes, as cosmos-framework at 5eee9ed trains them:

    mode                video                          actions
    forward_dynamics    first frame given              all given
    inverse_dynamics    all given                      generated
    wam                 first frame given              generated
    policy              first frame given              generated; no state row

The model is told when a row happens by `action_start_offset`: 1 where row 0 leads to frame 1, 0 where it is the state,
less one for each row of history. The framework tells from the number of rows alone whether there is a state; of the
numbers that are let through here it finds what the request says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import ArrayLike

from motedge.errors import ContractError, UsageError, closest
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.request import GenInputs
from motedge.runtime.rope import TEMPORAL_COMPRESSION

MODES = ("forward_dynamics", "inverse_dynamics", "wam", "policy")


@dataclass(frozen=True)
class ActionRows:
    """What `GenInputs` needs to know of actions and time. Arrays are the request's own."""

    mode: str
    # fp32 [A, Z], model actions, zero where they are to be generated and beyond raw_dim
    action_clean: FloatArray
    # fp32 [A], 1 = to be generated
    action_noisy: FloatArray
    # fp32 [T], 1 = to be generated
    vision_noisy: FloatArray
    # When row 0 happens, in actions before or after frame 0
    action_start_offset: int
    # Used channels
    raw_dim: int
    # Frames and actions a second
    fps: float
    fps_action: float
    # Rows of history, and whether a state row follows them
    history: int
    has_state: bool

    @property
    def actions(self) -> slice:
        """The rows that are actions: neither history nor state."""
        return slice(self.history + int(self.has_state), len(self.action_clean))

    def take_actions(self, rows: FloatArray) -> FloatArray:
        """Actions fp32 [n, raw_dim] of the denoised rows [A, Z], a copy."""
        if rows.shape != self.action_clean.shape:
            raise ContractError(
                "the denoised rows are another request's",
                expected=list(self.action_clean.shape),
                got=list(rows.shape),
            )
        return rows[self.actions, : self.raw_dim].astype(np.float32)

    def gen_inputs(
        self,
        vision_clean: FloatArray,
        cond_tokens: IntArray,
        uncond_tokens: Optional[IntArray] = None,
        *,
        domain_id: int,
        seed: int,
    ) -> GenInputs:
        """The request to the generator; vision_clean: fp32 [C, T, h, w], read where `vision_noisy` is 0.

        Raises:
            ContractError: arrays that do not fit.
            UsageError: a domain or a seed out of range.
        """
        return GenInputs(
            vision_clean=vision_clean,
            vision_noisy=self.vision_noisy,
            action_clean=self.action_clean,
            action_noisy=self.action_noisy,
            cond_tokens=cond_tokens,
            uncond_tokens=uncond_tokens,
            fps=self.fps,
            domain_id=domain_id,
            raw_dim=self.raw_dim,
            seed=seed,
            action_start_offset=self.action_start_offset,
            fps_action=self.fps_action,
        )


def arrange_rows(
    mode: str,
    *,
    frames: int,
    raw_dim: int,
    width: int,
    fps_action: float,
    actions: Optional[ArrayLike] = None,
    count: Optional[int] = None,
    state: Optional[ArrayLike] = None,
    history: Optional[ArrayLike] = None,
    fps: Optional[float] = None,
) -> ActionRows:
    """Arranges the rows of one request. All actions are the model's: normalised, if its were.

    Args:
        mode: One of `MODES`.
        frames: Pixel frames of the video, F: a multiple of 4 and one.
        raw_dim: Used channels.
        width: Width of a row, Z.
        fps_action: Actions a second.
        actions: [n, raw_dim], for forward_dynamics alone.
        count: Actions to generate, n, for the other modes; None: one for each step of the video.
        state: [raw_dim], the current state.
        history: [H, raw_dim], oldest first.
        fps: Frames a second; None: what follows from the numbers of frames and actions.

    Raises:
        UsageError: an unknown mode; numbers or rates that do not go together; something the mode has no place for.
        ContractError: arrays of another shape, NaN or infinity.
    """
    _check_numbers(mode, frames, raw_dim, width, fps_action)
    given, count = _given(mode, actions, count, frames, raw_dim)
    past = _matrix("history", history, raw_dim)
    now = _state(mode, state, raw_dim)
    per_step = _subsampling(frames, count)
    filled = np.concatenate([past, now, given])
    clean = np.zeros((len(past) + len(now) + count, width), np.float32)
    clean[: len(filled), :raw_dim] = filled
    noisy = np.ones(len(clean), np.float32)
    noisy[: len(filled)] = 0
    vision = np.ones(1 + (frames - 1) // TEMPORAL_COMPRESSION, np.float32)
    vision[: len(vision) if mode == "inverse_dynamics" else 1] = 0
    return ActionRows(
        mode=mode,
        action_clean=clean,
        action_noisy=noisy,
        vision_noisy=vision,
        action_start_offset=1 - len(now) - len(past),
        raw_dim=raw_dim,
        fps=_video_rate(fps, fps_action, per_step),
        fps_action=float(fps_action),
        history=len(past),
        has_state=len(now) == 1,
    )


def _check_numbers(mode: str, frames: int, raw_dim: int, width: int, fps_action: float) -> None:
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}", fix=closest(mode, MODES))
    if frames <= TEMPORAL_COMPRESSION or frames % TEMPORAL_COMPRESSION != 1:
        raise UsageError(
            "actions do not go with so many frames",
            expected=f"a multiple of {TEMPORAL_COMPRESSION} and one, from {TEMPORAL_COMPRESSION + 1}",
            got=frames,
            why="a latent frame stands for 4 frames, but the first for 1",
        )
    if not 0 < raw_dim <= width:
        raise UsageError("raw_dim is wrong", expected=f"1 to {width} channels", got=raw_dim)
    if not (math.isfinite(fps_action) and fps_action > 0):
        raise UsageError("fps_action is wrong", expected="a finite number above 0, in Hz", got=fps_action)


def _given(
    mode: str, actions: Optional[ArrayLike], count: Optional[int], frames: int, raw_dim: int
) -> tuple[FloatArray, int]:
    """The actions that are given, fp32 [n or 0, raw_dim], and how many there are or will be."""
    if mode == "forward_dynamics" and actions is None:
        raise UsageError(f"mode {mode!r} needs actions", expected=f"an array [{frames - 1}, {raw_dim}]")
    if mode != "forward_dynamics" and actions is not None:
        raise UsageError(
            f"mode {mode!r} generates the actions", got="actions", fix="leave them out, or give them as history"
        )
    given = _matrix("actions", actions, raw_dim)
    if mode != "forward_dynamics":
        return given, frames - 1 if count is None else int(count)
    if count not in (None, len(given)):
        raise UsageError("count is not the number of actions", expected=len(given), got=count)
    return given, len(given)


def _state(mode: str, state: Optional[ArrayLike], raw_dim: int) -> FloatArray:
    """The state row, fp32 [1, raw_dim], or [0, raw_dim] without one."""
    if mode == "policy" and state is not None:
        raise UsageError(
            "mode 'policy' has no state row",
            why="its rows are history and actions; the framework would have the state generated",
            fix="use mode 'wam', or give what came before as history",
        )
    return _matrix("state", None if state is None else np.asarray(state)[None], raw_dim)


def _matrix(what: str, values: Optional[ArrayLike], raw_dim: int) -> FloatArray:
    """Rows fp32 [n, raw_dim]; none of what is not given."""
    if values is None:
        return np.zeros((0, raw_dim), np.float32)
    made = np.asarray(values, dtype=np.float32)
    if made.ndim != 2 or made.shape[1] != raw_dim:
        shape = list(made.shape[1:]) if what == "state" else list(made.shape)
        expected = f"[{raw_dim}]" if what == "state" else f"[n, {raw_dim}]"
        raise ContractError(f"{what} of the wrong shape", expected=expected, got=shape)
    if not np.isfinite(made).all():
        raise ContractError(f"{what}: NaN or infinity", expected="finite numbers")
    return made


def _subsampling(frames: int, count: int) -> int:
    """Actions a step of the video."""
    steps = frames - 1
    if count < steps or count % steps:
        raise UsageError(
            "the number of actions does not go with the number of frames",
            expected=f"{steps} actions for {frames} frames, or a multiple of {steps} where the video is subsampled",
            got=count,
            fix="cut the actions off or repeat the last one, or choose other frames",
        )
    return count // steps


def _video_rate(fps: Optional[float], fps_action: float, per_step: int) -> float:
    expected = fps_action / per_step
    if fps is not None and not math.isclose(fps, expected, rel_tol=1e-6):
        raise UsageError(
            "frames and actions do not run at rates that go together",
            expected=f"{expected:g} frames a second at {fps_action:g} actions a second, {per_step} a frame",
            got=f"{fps:g}",
            why="they would end at different times",
        )
    return float(expected)
