"""Limits from TOML: what is shipped is what the robot's maker says, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.client import ActionEnvelope
from motedge.client.envelope_limits import load_envelope, parse_envelope
from motedge.errors import UsageError
from motedge.runtime.policy.embodiments import find_embodiment

_FIELD = 'embodiment = "e"\n[[field]]\nname = "x"\nunit = "m"\n'


def test_droid_has_the_fields_that_the_policy_gives() -> None:
    limits, embodiment = load_envelope("droid_lerobot"), find_embodiment("droid_lerobot")
    assert limits.names == embodiment.fields
    assert tuple(field.unit for field in limits.fields) == embodiment.units


def test_droid_is_what_franka_publishes() -> None:
    """frankaemika/docs at cda9283, source/control-parameters-joint-panda.csv, row by row."""
    joints = load_envelope("droid_lerobot").fields[:7]
    assert [joint.max for joint in joints] == [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
    assert [joint.min for joint in joints] == [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
    assert [joint.max_speed_per_s for joint in joints] == [2.175] * 4 + [2.61] * 3
    assert [joint.max_acceleration_per_s2 for joint in joints] == [15, 7.5, 10, 12.5, 15, 20, 20]
    assert [joint.max_jerk_per_s3 for joint in joints] == [7500, 3750, 5000, 6250, 7500, 10000, 10000]


def test_what_a_range_can_use_is_all_of_the_datasheets_limits() -> None:
    joints = load_envelope("droid_lerobot").fields[:7]
    assert [joint.axis().usable() for joint in joints] == [joint.axis() for joint in joints]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embodiment = ", "is not TOML"),
        ('embodiment = "e"', "the key 'field' is missing"),
        (_FIELD + "max_sped_per_s = 1.0", "did you mean 'max_speed_per_s'"),
        ('embodyment = "e"\n' + _FIELD, "did you mean 'embodiment'"),
        (_FIELD + 'min = "0"', "expected: +a number"),
        (_FIELD + "min = true", "expected: +a number"),
        (_FIELD + "min = 1.0\nmax = 1.0", "min below max"),
        (_FIELD + "max = inf", "finite"),
        (_FIELD + "max_speed_per_s = 0.0", "over 0"),
        (_FIELD + "max_speed_per_s = nan", "over 0"),
        (_FIELD + "max_acceleration_per_s2 = 1.0", "without max_speed_per_s"),
        (_FIELD + "max_speed_per_s = 1.0\nmax_jerk_per_s3 = 1.0", "without max_acceleration_per_s2"),
        (_FIELD + 'on_violation = "clmp"', "did you mean 'clamp'"),
        (_FIELD + '[[field]]\nname = "x"\nunit = "m"', "names of their own"),
        ('embodiment = "e"\nfield = [1]', r"\[\[field\]\]"),
        ('embodiment = "e"\n[[field]]\nname = "x"', "'unit' is missing"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_envelope(text, "my.toml")


def test_the_files_default_holds_for_fields_that_say_nothing() -> None:
    text = 'embodiment = "e"\non_violation = "hold"\n[[field]]\nname = "x"\nunit = "m"\n'
    text += '[[field]]\nname = "y"\nunit = "m"\non_violation = "reject"\n'
    assert [field.on_violation for field in parse_envelope(text, "t").fields] == ["hold", "reject"]


def test_unknown_embodiments_need_a_file_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'droid_lerobot'"):
        ActionEnvelope.for_embodiment("droid_lerobo")
    with pytest.raises(UsageError, match="write a TOML file of your own"):
        ActionEnvelope.for_embodiment("av")
    with pytest.raises(UsageError, match="can't be read"):
        ActionEnvelope.from_file(tmp_path / "none.toml")
    (tmp_path / "mine.toml").write_text(_FIELD + "min = 0.0\nmax_speed_per_s = 1.0\n")
    envelope = ActionEnvelope.from_file(tmp_path / "mine.toml")
    envelope.reset([1.0])
    # No limit above, none on acceleration and jerk: full speed in the first step
    assert envelope.apply([100.0], 0.5).action[0] == pytest.approx(1.5, rel=1e-3)
    assert envelope.apply([1.9], 0.5).action[0] == pytest.approx(1.9)
