"""Shape sets: derived sizes, refused values, TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.errors import UsageError
from motedge.export.shapes import SHAPE_SETS, ShapeSet, load_shape_set


def test_droid_has_the_published_token_counts() -> None:
    shapes = SHAPE_SETS["droid"]
    assert (shapes.grid, shapes.latent_frames, shapes.tokens_per_frame) == ((33, 40), 9, 340)
    assert shapes.latent_frames * shapes.tokens_per_frame + shapes.actions == 3093


def test_av_has_the_published_token_counts() -> None:
    shapes = SHAPE_SETS["av"]
    assert shapes.latent_frames * shapes.tokens_per_frame == 6240
    assert shapes.actions == 60


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"canvas": (100, 112)}, "multiples of 16"),
        ({"content": (97, 107)}, "within the canvas"),
        ({"content": (8, 107)}, "within the canvas"),
        ({"frames": 10}, "4k"),
        ({"frames": 1}, "latent frames"),
        ({"actions": 17}, "actions"),
        ({"frames": 5, "max_latent_frames": 2}, "max_latent_frames"),
        ({"actions": 2, "max_actions": 2}, "max_actions"),
        ({"opt_prompt_tokens": 513}, "opt_prompt_tokens"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, object], named: str) -> None:
    values = {"name": "x", "canvas": (96, 112), "content": (84, 107), "frames": 9, "actions": 9, "fps": 15.0}
    values.update(max_latent_frames=4, max_actions=16)
    ShapeSet(**values)
    with pytest.raises(UsageError, match=named):
        ShapeSet(**{**values, **change})


def test_an_unknown_name_offers_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean 'droid'"):
        load_shape_set("driod")


TOML = """
canvas = [96, 112]
content = [84, 107]
frames = 9
actions = 9
fps = 15.0
max_latent_frames = 4
max_actions = 16
"""


def test_a_toml_file_is_a_shape_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    shapes = load_shape_set(str(path))
    assert (shapes.name, shapes.canvas, shapes.to_dict()["latent"]) == ("mine", (96, 112), [3, 5, 6])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TOML.replace("frames = 9", "frams = 9"), "did you mean 'frames'"),
        (TOML.replace("fps = 15.0\n", ""), "missing"),
        ("canvas = [", "is not TOML"),
    ],
)
def test_a_wrong_toml_file(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        load_shape_set(str(path))


def test_a_missing_toml_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read"):
        load_shape_set(str(tmp_path / "none.toml"))
