"""Recorded actions and the chunks that were predicted on the way, a panel a field."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.lerobot_replay.comparison import Comparison
from examples.lerobot_replay.recorded import FloatArray, RecordedEpisode
from motedge.errors import MissingPackageError
from motedge.files import atomic_path


def require_matplotlib() -> None:
    """Raises before any work what `plot` would raise at its end.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("matplotlib", extra="plot", purpose="to draw the actions") from error


def plot(path: Path, episode: RecordedEpisode, asked_s: FloatArray, comparison: Comparison, rate_hz: float) -> None:
    """Writes a picture.

    Args:
        path: the file; its ending says the format.
        episode: what was recorded.
        asked_s: when each chunk of `comparison` was asked for, s: [n].
        comparison: the chunks.
        rate_hz: their rows a second.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    panels = figure.subplots(4, 2, sharex=True).ravel()
    for at, (panel, name) in enumerate(zip(panels, comparison.field_names)):
        panel.plot(episode.due_s, episode.actions[:, at], color="#444444", linewidth=1.4, label=episode.reference)
        for number, (start_s, rows) in enumerate(zip(asked_s, comparison.predicted)):
            due_s = start_s + (np.arange(len(rows)) + 1) / rate_hz
            colour = ("#1f77b4", "#d9730d")[number % 2]
            panel.plot(due_s, rows[:, at], color=colour, linewidth=0.9, label="predicted" if number < 1 else None)
        panel.set_title(f"{name} ({'rad' if at < 7 else 'fraction closed'})", fontsize=9)
        panel.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    for panel in panels[-2:]:
        panel.set_xlabel("s")
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110, format=path.suffix.lstrip(".") or "png")
