"""How far a plan's times can be trusted: published times beside predictions that had not seen their publisher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from motedge.targets.plan.text import table
from motedge.targets.roofline.fit import Judgement
from motedge.units import format_ms

SCHEMA = "motedge.published-times/v1"


def published_lines(judgement: Judgement) -> Iterator[str]:
    """The table, and the error in a sentence."""
    header = ("published", "device", "what", "precision", "time", "predicted", "unseen", "ratio", "fitted", "source")
    rows = []
    for row in judgement.rows:
        figure = row.figure
        rows.append(
            (
                figure.publisher,
                figure.target,
                f"{figure.model} {figure.computed}" + (f", {figure.forwards} forwards" if figure.forwards > 1 else ""),
                figure.precision,
                format_ms(1000 * figure.seconds),
                format_ms(1000 * row.predicted_s),
                format_ms(1000 * row.unseen_s),
                f"{row.ratio:.2f}",
                "yes" if figure.fitted else f"no: {figure.why}",
                f"{figure.source} ({figure.mark})",
            )
        )
    yield from table(header, rows)
    worst = judgement.worst
    yield ""
    yield "unseen: by a fit without anything from the same clock; ratio: unseen over published"
    yield (
        f"honest error: about two predictions of three are off by a factor of {judgement.typical_factor:.2f} or less, "
        f"decoding aside; worst {worst.ratio:.2f} ({worst.figure.id}). A plan's interval, meant for nine of ten, holds "
        f"{100 * judgement.within:.0f} % of them."
    )


def published_dict(judgement: Judgement) -> dict[str, Any]:
    """JSON form."""
    return {
        "schema": SCHEMA,
        "log_error": judgement.log_error,
        "typical_factor": judgement.typical_factor,
        "worst": judgement.worst.figure.id,
        "figures": [
            {
                **dataclasses.asdict(row.figure),
                "predicted_s": row.predicted_s,
                "unseen_s": row.unseen_s,
                "ratio": row.ratio,
                "bound": row.bound,
            }
            for row in judgement.rows
        ],
    }
