"""A picture of one action chunk: what the model saw, and what the robot is to do over the next seconds."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motedge.errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from motedge.runtime.engine import FloatArray
    from motedge.runtime.policy import ActionChunk, Observation
    from motedge.runtime.policy.resize import Image

# Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/)
_JOINT_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#7A6F00")
_GRIPPER_COLOUR = "#7F1D4E"
_INK, _MUTED, _GRID = "#1F2430", "#667085", "#E4E7EC"
# Above it the DROID client closes the gripper
_CLOSE_ABOVE = 0.5
_FORMATS = (".png", ".pdf", ".svg")


def check_target(target: Path) -> None:
    """Whether a plot can be drawn into that file.

    Raises:
        UsageError: a file type that is not drawn.
        MissingPackageError: matplotlib is not installed.
    """
    if target.suffix.lower() not in _FORMATS:
        raise UsageError("the plot's file type is unknown", expected=" ".join(_FORMATS), got=target.name)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("matplotlib", extra="plot", purpose="to draw the actions") from error


def plot_chunk(chunk: ActionChunk, image: Image, observation: Observation, target: Path) -> None:
    """Draws `chunk` beside the composed `image`, uint8 RGB [rows, columns, 3], into a PNG, PDF or SVG file.

    Raises:
        UsageError, MissingPackageError: see `check_target`.
    """
    check_target(target)
    # Not pyplot: it would pick a window system and keep global state
    from matplotlib.figure import Figure

    from motedge.files import atomic_path

    figure = Figure(figsize=(13.0, 6.9), dpi=130, facecolor="white")
    columns = figure.add_gridspec(
        1, 2, width_ratios=(1.0, 1.42), left=0.02, right=0.955, top=0.815, bottom=0.085, wspace=0.13
    )
    left = columns[0].subgridspec(2, 1, height_ratios=(4.7, 0.8), hspace=0.05)
    right = columns[1].subgridspec(2, 1, height_ratios=(3.3, 1.0), hspace=0.12)
    _draw_image(figure.add_subplot(left[0]), chunk, image)
    _draw_state(figure.add_subplot(left[1]), observation)
    joints = figure.add_subplot(right[0])
    _draw_joints(joints, chunk, observation.joint_position)
    _draw_gripper(figure.add_subplot(right[1], sharex=joints), chunk, observation.gripper_position)
    title = textwrap.shorten(observation.instruction, 90, placeholder=" ...")
    figure.text(0.02, 0.945, f"“{title}”", fontsize=16, color=_INK, weight="bold", va="center")
    figure.text(0.02, 0.895, _subtitle(chunk), fontsize=9.5, color=_MUTED, va="center")
    with atomic_path(target) as partial:
        figure.savefig(partial, format=target.suffix.lower()[1:], facecolor="white")


def _subtitle(chunk: ActionChunk) -> str:
    details = chunk.details
    return (
        f"{len(chunk.actions)} actions at {chunk.rate_hz:g} Hz for {chunk.embodiment}   |   "
        f"{details['steps']} steps, {chunk.forwards} forwards, seed {chunk.seed}   |   "
        f"{chunk.timings_ms['total_ms'] / 1e3:.2f} s from observation to actions"
    )


def _draw_image(axes: Any, chunk: ActionChunk, image: Image) -> None:
    from motedge.runtime.policy.views import COMPOSED_SIZE, view_regions

    axes.imshow(image, interpolation="lanczos")
    axes.set_axis_off()
    axes.set_anchor("N")
    axes.set_title("what the model sees", fontsize=10.5, color=_INK, loc="left", pad=7)
    # The regions are those of 540 x 640; another content size is that picture, stretched
    down, across = image.shape[0] / COMPOSED_SIZE[0], image.shape[1] / COMPOSED_SIZE[1]
    for name, (rows, columns) in view_regions().items():
        top, left = rows.start * down, columns.start * across
        label = {"wrist": "wrist camera", "left": "left shoulder", "right": "right shoulder"}[name]
        badge = {"boxstyle": "round,pad=0.35", "facecolor": "#111827", "alpha": 0.72, "edgecolor": "none"}
        axes.text(left + 9, top + 10, label, fontsize=8, color="white", va="top", ha="left", bbox=badge)
        if name in chunk.missing_views:
            middle = (columns.start + columns.stop) / 2 * across, (rows.start + rows.stop) / 2 * down
            axes.text(*middle, "not available", fontsize=11, color="#98A2B3", ha="center", va="center", style="italic")
    rows, columns = view_regions()["left"]
    axes.axhline(rows.start * down - 0.5, color="white", linewidth=1.2)
    axes.plot([columns.stop * across - 0.5] * 2, [rows.start * down, image.shape[0] - 1], "w", linewidth=1.2)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _draw_state(axes: Any, observation: Observation) -> None:
    """The robot's state in figures, under the image."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    names = [f"q{number}" for number in range(len(_JOINT_COLOURS))] + ["gripper"]
    values = [f"{angle:+.2f}" for angle in observation.joint_position] + [f"{observation.gripper_position:.2f}"]
    colours = (*_JOINT_COLOURS, _GRIPPER_COLOUR)
    axes.text(0, 0.97, "state now  [rad; fraction closed]", fontsize=8.5, color=_MUTED, va="top")
    for number, (name, value, colour) in enumerate(zip(names, values, colours)):
        across = number / len(names)
        axes.text(across, 0.62, name, fontsize=9, color=colour, weight="bold", va="top")
        axes.text(across, 0.34, value, fontsize=9, color=_INK, va="top")
    source = f"source: {observation.source or 'given on the command line'}"
    lines = textwrap.wrap(source, 92, max_lines=2, placeholder=" ...")
    axes.text(0, 0.02, "\n".join(lines), fontsize=7.5, color=_MUTED, va="top", linespacing=1.35)


def _draw_joints(axes: Any, chunk: ActionChunk, state: FloatArray) -> None:
    time_s, joints = chunk.time_s, chunk.joint_position_rad
    for number, colour in enumerate(_JOINT_COLOURS):
        axes.plot([0, time_s[0]], [state[number], joints[0, number]], color=colour, linewidth=1.1, linestyle=":")
        axes.plot(0, state[number], "o", markersize=6, markerfacecolor="white", color=colour, clip_on=False, zorder=5)
        axes.plot(time_s, joints[:, number], color=colour, linewidth=1.9, marker="o", markersize=2.6)
    for number, height in _spread(joints[-1].tolist(), _label_gap(joints)):
        axes.annotate(
            f"q{number}", (time_s[-1], joints[-1, number]), (time_s[-1] * 1.018, height), color=_JOINT_COLOURS[number],
            fontsize=9, weight="bold", va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_ylabel("joint position  [rad]", color=_INK, fontsize=10)
    axes.set_title(
        "joint commands, absolute; rings: where the joints are now", fontsize=10.5, color=_INK, loc="left", pad=7
    )
    axes.tick_params(labelbottom=False)
    axes.margins(y=0.07)
    _dress(axes, chunk)


def _draw_gripper(axes: Any, chunk: ActionChunk, state: float) -> None:
    time_s, closed = chunk.time_s, chunk.gripper_fraction
    low, high = min(-0.06, float(closed.min()) - 0.06), max(1.06, float(closed.max()) + 0.06)
    axes.fill_between(
        time_s, low, high, where=closed > _CLOSE_ABOVE, step="mid", color=_GRIPPER_COLOUR, alpha=0.10, linewidth=0
    )
    axes.fill_between(time_s, 0, closed, color=_GRIPPER_COLOUR, alpha=0.22, linewidth=0)
    axes.plot(time_s, closed, color=_GRIPPER_COLOUR, linewidth=1.9)
    axes.plot([0, time_s[0]], [state, closed[0]], color=_GRIPPER_COLOUR, linewidth=1.1, linestyle=":")
    axes.plot(0, state, "o", markersize=6, markerfacecolor="white", color=_GRIPPER_COLOUR, clip_on=False, zorder=5)
    axes.axhline(_CLOSE_ABOVE, color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.text(time_s[-1] * 1.018, _CLOSE_ABOVE, "closes\nabove", color=_MUTED, fontsize=8, va="center")
    axes.set_ylim(low, high)
    axes.set_yticks([0, 1], ["open", "closed"])
    axes.set_ylabel("gripper", color=_INK, fontsize=10)
    axes.set_xlabel("time after the observation  [s]", color=_INK, fontsize=10)
    _dress(axes, chunk)


def _dress(axes: Any, chunk: ActionChunk) -> None:
    axes.set_xlim(0, float(chunk.time_s[-1]))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#D0D5DD")


def _label_gap(values: Any) -> float:
    """The least distance between two labels at the right, in the unit of the values."""
    return float(max(values.max() - values.min(), 1e-3)) * 0.052


def _spread(heights: list[float], gap: float) -> list[tuple[int, float]]:
    """(index, height) of labels at least `gap` apart; those that collide are stacked about their common middle."""
    stacks: list[list[int]] = []
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        stacks.append([index])
        while len(stacks) > 1 and _bottom(stacks[-1], heights, gap) - _top(stacks[-2], heights, gap) < gap:
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    return [
        (index, _bottom(stack, heights, gap) + place * gap) for stack in stacks for place, index in enumerate(stack)
    ]


def _bottom(stack: list[int], heights: list[float], gap: float) -> float:
    return sum(heights[index] for index in stack) / len(stack) - gap * (len(stack) - 1) / 2


def _top(stack: list[int], heights: list[float], gap: float) -> float:
    return _bottom(stack, heights, gap) + gap * (len(stack) - 1)
