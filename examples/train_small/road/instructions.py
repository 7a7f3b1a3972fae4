"""What the driver is told: four behaviours, each in several words.

Training draws from `TRAINED`; `HELD_OUT` says the same in words that no episode has, and is for evaluation alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from motedge.errors import DataError, closest

BEHAVIOURS = ("left", "right", "slow", "stop")
CANONICAL: Mapping[str, str] = {
    "left": "Keep to the left side of the road.",
    "right": "Keep to the right side of the road.",
    "slow": "Drive slowly in the middle of the road.",
    "stop": "Stop the car.",
}
TRAINED: Mapping[str, tuple[str, ...]] = {
    "left": (CANONICAL["left"], "Drive on the left.", "Stay in the left lane."),
    "right": (CANONICAL["right"], "Drive on the right.", "Stay in the right lane."),
    "slow": (CANONICAL["slow"], "Go slowly along the middle.", "Drive slowly."),
    "stop": (CANONICAL["stop"], "Stop.", "Brake and stand still."),
}
HELD_OUT: Mapping[str, str] = {
    "left": "Keep left.",
    "right": "Keep right.",
    "slow": "Slowly, in the middle.",
    "stop": "Stand still.",
}
# Every trained text in a fixed order: what `task_index` counts
TASKS: tuple[str, ...] = tuple(text for name in BEHAVIOURS for text in TRAINED[name])
_BEHAVIOUR_OF = {
    **{text: name for name, texts in TRAINED.items() for text in texts},
    **{text: name for name, text in HELD_OUT.items()},
}


def behaviour_of(text: str) -> str:
    """The behaviour that a text asks for.

    Raises:
        DataError: a text that is in none of the lists.
    """
    found = _BEHAVIOUR_OF.get(text)
    if found is None:
        raise DataError(
            f"unknown task {text!r}",
            expected="one of the texts of examples/train_small/road/instructions.py",
            why="what cannot be told apart cannot be scored",
            fix=closest(text, tuple(_BEHAVIOUR_OF)),
        )
    return found
