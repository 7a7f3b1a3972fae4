"""Ladders: from settings, from TOML, and what they refuse."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from motedge.errors import MotedgeError, UsageError
from motedge.runtime.deadline import Ladder, OperatingPoint
from motedge.runtime.request import SamplerSettings

SHIPPED = SamplerSettings(guidance_interval=(960.0, 1001.0))
TOML = """
schema = "motedge.ladder/v1"

[[points]]
name = "all"
guidance_interval = "always"

[[points]]
name = "first"
guidance_interval = [960, 1001]

[[points]]
name = "short"
steps = 2
guidance = 1
trained = false
"""


def test_forwards_are_those_of_the_loop() -> None:
    assert OperatingPoint("a", SHIPPED).forwards == 5
    assert OperatingPoint("b", SamplerSettings()).forwards == 8
    assert OperatingPoint("c", SamplerSettings(steps=1, guidance=1.0)).forwards == 1
    assert OperatingPoint("c", SamplerSettings(), False).to_dict() == {
        "name": "c",
        "steps": 4,
        "shift": 5.0,
        "guidance": 3.0,
        "guidance_interval": None,
        "forwards": 8,
        "trained": False,
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SHIPPED, {"shipped": 5, "2-steps": 3, "2-steps-unguided": 2, "1-step-unguided": 1}),
        (
            SamplerSettings(),
            {
                "shipped": 8,
                "guided-first": 5,
                "2-steps": 4,
                "2-steps-guided-first": 3,
                "2-steps-unguided": 2,
                "1-step-unguided": 1,
            },
        ),
        (SamplerSettings(steps=1, guidance=1.0), {"shipped": 1}),
        (SamplerSettings(steps=3, guidance=1.0), {"shipped": 3, "1-step-unguided": 1}),
    ],
)
def test_ladder_of_settings(settings: SamplerSettings, expected: dict[str, int]) -> None:
    assert {point.name: point.forwards for point in Ladder.from_settings(settings)} == expected


def test_every_ladder_of_settings_is_in_order() -> None:
    intervals = (None, (960.0, 1001.0), (0.0, 500.0))
    for steps, guidance, interval in itertools.product(range(1, 40), (1.0, 3.0), intervals):
        settings = SamplerSettings(steps, 5.0, guidance, interval)
        ladder = Ladder.from_settings(settings)
        assert ladder.best.settings == settings and ladder.cheapest.forwards == 1
        assert all(point.trained for point in ladder)


def test_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "ladder.toml"
    file.write_text(TOML, encoding="utf-8")
    ladder = Ladder.from_toml(file, SHIPPED)
    assert [point.name for point in ladder] == ["all", "first", "short"] and len(ladder) == 3
    assert [point.forwards for point in ladder] == [8, 5, 2]
    assert ladder.best.settings == SamplerSettings()
    assert ladder.point("first").settings == SHIPPED
    # What is not said is the bundle's
    assert ladder.cheapest.settings == SamplerSettings(2, 5.0, 1.0, (960.0, 1001.0))
    assert [point.trained for point in ladder] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[points", "is not TOML"),
        ('schema = "other"', "another schema"),
        (TOML + 'colour = "red"', "point 3: unknown key 'colour'"),
        (TOML.replace("steps", "step"), "did you mean 'steps'"),
        (TOML + "frames = 9", "no sampler setting"),
        (TOML.replace('"first"', '"all"'), "two points called 'all'"),
        (TOML.replace('name = "short"', ""), "point 3 has no name"),
        (TOML.replace('"short"', "3"), "has no name"),
        (TOML.replace("steps = 2", "steps = 7"), "no cheaper than 'first'"),
        (TOML.replace("steps = 2", "steps = 0"), "number of denoising steps"),
        (TOML.replace("steps = 2", "steps = 2.0"), "number of denoising steps"),
        (TOML.replace("guidance = 1\n", 'guidance = "no"\n'), "guidance is wrong"),
        (TOML.replace("guidance = 1\n", "guidance = nan\n"), "guidance scale is wrong"),
        (TOML.replace("[960, 1001]", "[960]"), "guidance_interval is wrong"),
        (TOML.replace("[960, 1001]", "[1001, 960]"), "interval is empty"),
        (TOML.replace('"always"', '"never"'), "guidance_interval is wrong"),
        (TOML.replace("false", '"no"'), "trained is wrong"),
        ('schema = "motedge.ladder/v1"', "no operating point"),
        ('schema = "motedge.ladder/v1"\npoints = 3', "points is of a wrong kind"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Ladder.from_text(text, SHIPPED, "ladder.toml")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        Ladder.from_toml(tmp_path / "absent.toml", SHIPPED)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MotedgeError, match="can't be read"):
        Ladder.from_toml(tmp_path / "binary.toml", SHIPPED)


def test_unknown_point() -> None:
    with pytest.raises(UsageError, match="did you mean 'shipped'"):
        Ladder.from_settings(SHIPPED).point("shiped")


def test_a_step_cache_is_in_the_first_point_alone() -> None:
    ladder = Ladder.from_settings(SamplerSettings(steps=8, step_cache="every:2"))  # type: ignore[arg-type]
    first, *others = ladder.points
    assert (first.forwards, first.to_dict()["step_cache"]) == (10, "every:2")
    assert others and all(point.settings.step_cache is None and point.forwards < 10 for point in others)


def test_a_distilled_model_has_one_point() -> None:
    settings = SamplerSettings(steps=2, shift=1.0, guidance=1.0, distilled_sigmas=(1.0, 0.5))
    assert [point.settings for point in Ladder.from_settings(settings).points] == [settings]
