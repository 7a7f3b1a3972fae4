"""Sentences about robots and roads, written here, from which the synthetic tokenizer learns its vocabulary."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

_VERBS = (
    "pick up",
    "place",
    "push",
    "pull",
    "lift",
    "grasp",
    "move",
    "rotate",
    "open",
    "close",
    "pour",
    "wipe",
    "stack",
)
_ADJECTIVES = ("red", "green", "blue", "yellow", "black", "white", "small", "large", "left", "right", "metal", "wooden")
_OBJECTS = ("cup", "bowl", "block", "bottle", "drawer", "marker", "towel", "plate", "banana", "box", "lid", "spoon")
_PLACES = ("on the table", "in the bowl", "into the drawer", "next to the plate", "on the shelf", "in the bin")
_ROAD = (
    "The vehicle slows down before the intersection and turns left.",
    "The car in front brakes, and the ego vehicle keeps its distance.",
    "A pedestrian is crossing the road from the right side.",
    "The road is wet, and the traffic light changes to green.",
    "The camera moves forward along the lane at constant speed.",
)
_GENERAL = (
    "This video contains concatenated views from multiple camera perspectives.",
    "The top row is from the wrist-mounted camera.",
    "The bottom row contains two horizontally concatenated third-person perspective views of the scene.",
    "The views are from opposite sides, with the robot visible.",
    "This video is captured from a first-person perspective looking at the scene.",
    "The video is 2.0 seconds long and is of 15 FPS. This video is of 544x736 resolution.",
    "You are a helpful assistant. The user asks a question, and the assistant answers it.",
    "First think about the scene, then describe what the robot should do next.",
    "The gripper is open. The arm reaches for the object and closes the gripper around it.",
)
# Words of the chat template, which must each become one token: they are repeated until they do.
_TEMPLATE_WORDS = ("system", "user", "assistant", "think", "no_think")
_TEMPLATE_REPEATS = 2000


def sentences() -> Iterator[str]:
    """The corpus, in a fixed order."""
    for verb, adjective, thing, place in itertools.product(_VERBS, _ADJECTIVES, _OBJECTS, _PLACES):
        yield f"{verb.capitalize()} the {adjective} {thing} {place}."
    for sentence in _ROAD + _GENERAL:
        yield from itertools.repeat(sentence, 40)
    for verb, thing in itertools.product(_VERBS, _OBJECTS):
        yield json.dumps(_caption(f"{verb.capitalize()} the {thing}."))
    for word in _TEMPLATE_WORDS:
        yield from itertools.repeat(word, _TEMPLATE_REPEATS)


def _caption(description: str) -> dict[str, object]:
    """A caption in the JSON form that the model was trained with."""
    return {
        "cinematography": {"framing": " ".join(_GENERAL[:4])},
        "actions": [{"time": "0:00-0:02", "description": description}],
        "duration": "2s",
        "fps": 15.0,
        "resolution": {"H": 544, "W": 736},
        "aspect_ratio": "4,3",
    }
