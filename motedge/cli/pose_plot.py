"""A picture of one chunk of a vehicle: what the model saw, the way that it is to take, and how fast."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motedge.cli.chunk_plot import check_target

if TYPE_CHECKING:
    from motedge.runtime.policy import ActionChunk, Observation
    from motedge.runtime.policy.resize import Image

_INK, _MUTED, _GRID, _WAY, _SPEED = "#1F2430", "#667085", "#E4E7EC", "#0072B2", "#D55E00"
# The least that is shown, m: right and ahead, from and to. A car that stops must not look like one that drives
_LEAST_SHOWN_M = ((-4.0, 0.0), (4.0, 8.0))


def plot_poses(chunk: ActionChunk, image: Image, observation: Observation, target: Path) -> None:
    """Draws `chunk`, poses framewise, beside `image`, uint8 RGB [rows, columns, 3], into a PNG, PDF or SVG file.

    Raises:
        UsageError, MissingPackageError: see `motedge.cli.chunk_plot.check_target`.
        ContractError: rows that are no poses.
    """
    check_target(target)
    from matplotlib.figure import Figure

    from motedge.files import atomic_path
    from motedge.runtime.actions.poses import trajectory_from_rows

    places = trajectory_from_rows(chunk.actions)[:, :3, 3]
    figure = Figure(figsize=(13.0, 5.6), dpi=130, facecolor="white")
    columns = figure.add_gridspec(
        1, 3, width_ratios=(1.0, 0.8, 1.1), left=0.02, right=0.965, top=0.8, bottom=0.11, wspace=0.2
    )
    shown = figure.add_subplot(columns[0])
    shown.imshow(image, interpolation="nearest")
    shown.set_axis_off()
    shown.set_title("what the model sees", fontsize=10.5, color=_INK, loc="left", pad=7)
    _draw_way(figure.add_subplot(columns[1]), places)
    _draw_speed(figure.add_subplot(columns[2]), chunk, places)
    title = textwrap.shorten(observation.instruction, 90, placeholder=" ...")
    figure.text(0.02, 0.94, f"“{title}”", fontsize=16, color=_INK, weight="bold", va="center")
    figure.text(
        0.02,
        0.88,
        f"{len(chunk.actions)} poses at {chunk.rate_hz:g} Hz for {chunk.embodiment}   |   "
        f"{chunk.details['steps']} steps, {chunk.forwards} forwards, seed {chunk.seed}   |   "
        f"{chunk.timings_ms['total_ms'] / 1e3:.2f} s from observation to actions",
        fontsize=9.5,
        color=_MUTED,
        va="center",
    )
    with atomic_path(target) as partial:
        figure.savefig(partial, format=target.suffix.lower()[1:], facecolor="white")


def _draw_way(axes: Any, places: Any) -> None:
    """From above: right along x, ahead along z, in the frame of the picture."""
    axes.plot(places[:, 0], places[:, 2], color=_WAY, linewidth=1.9, marker="o", markersize=3.2)
    axes.plot(0, 0, "o", markersize=7, markerfacecolor="white", color=_WAY, zorder=5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.update_datalim(_LEAST_SHOWN_M)
    axes.autoscale_view()
    axes.set_xlabel("right  [m]", color=_INK, fontsize=10)
    axes.set_ylabel("ahead  [m]", color=_INK, fontsize=10)
    axes.set_title("the way from above; ring: now", fontsize=10.5, color=_INK, loc="left", pad=7)
    _dress(axes)


def _draw_speed(axes: Any, chunk: ActionChunk, places: Any) -> None:
    speed_m_s = np.linalg.norm(np.diff(places, axis=0), axis=1) * chunk.rate_hz
    axes.plot(chunk.time_s, speed_m_s, color=_SPEED, linewidth=1.9, marker="o", markersize=3.2)
    axes.set_ylim(0, max(1.0, 1.15 * float(speed_m_s.max())))
    axes.set_xlim(0, float(chunk.time_s[-1]))
    axes.set_xlabel("time after the observation  [s]", color=_INK, fontsize=10)
    axes.set_title("speed  [m/s]", fontsize=10.5, color=_INK, loc="left", pad=7)
    _dress(axes)


def _dress(axes: Any) -> None:
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#D0D5DD")
