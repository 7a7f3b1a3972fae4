"""Building blocks of action rows, and the table of embodiments that is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from droid_vectors import vectors

from motedge.client.envelope_limits import load_envelope
from motedge.errors import InternalError, ObservationError, UsageError
from motedge.runtime.actions.layout import KINDS, layout_from_blocks
from motedge.runtime.policy.embodiments import Embodiment, find_embodiment, load_embodiments, load_viewpoints
from motedge.runtime.policy.prompt import Clip, build_prompt


def test_blocks_follow_one_another() -> None:
    layout = layout_from_blocks(["left.pose9", "left.grasp", "joints*2"])
    assert layout.width == 12
    assert layout.fields[:4] == ("left_x", "left_y", "left_z", "left_rot6d_0")
    assert layout.fields[-3:] == ("left_gripper_position", "joint_position_0", "joint_position_1")
    assert layout.units[0] == "m" and layout.units[-1] == "rad"
    (pose,) = layout.find("pose9", "left")
    assert pose.channels == slice(0, 9)
    assert layout.find("pose9", "right") == ()


def test_channels_outside_their_bounds_are_named() -> None:
    layout = layout_from_blocks(["pose9", "width"])
    actions = np.zeros((3, 10), np.float32)
    actions[:, 0] = 1e6
    actions[:, 3] = 1 + 1e-6
    assert layout.outside(actions) == ()
    actions[1, 4], actions[2, 9] = -1.2, -0.01
    assert layout.outside(actions) == ("rot6d_1", "gripper_width")


@pytest.mark.parametrize("blocks", [["pose8"], ["joints"], ["grasp*2"], ["pose9", "pose9"], ["Left.pose9"]], ids=str)
def test_unsound_layouts(blocks) -> None:
    with pytest.raises(InternalError):
        layout_from_blocks(blocks)


@pytest.mark.parametrize("robot", load_embodiments().values(), ids=lambda robot: robot.name)
def test_every_embodiment_is_consistent(robot: Embodiment) -> None:
    assert 0 <= robot.domain_id < 32
    widths = {layout.width for layout in robot.layouts.values()}
    assert not widths or {robot.raw_dim, robot.base_raw_dim} - {None} <= widths
    assert set(robot.viewpoints) <= set(load_viewpoints())
    for method in (robot.normaliser, robot.base_normaliser):
        assert method in (None, "none", "quantile", "quantile_rot")
    assert (robot.stats is not None) == bool({robot.normaliser, robot.base_normaliser} & {"quantile", "quantile_rot"})
    if robot.raw_dim is not None and robot.layouts:
        assert robot.find_layout().width == robot.raw_dim == len(robot.fields)


def test_widths_of_the_specification() -> None:
    """Table of 5.8: what depends on the data set has its widths as variants."""
    variants = {name: sorted(layout.width for layout in robot.layouts.values()) for name, robot in _open_widths()}
    assert variants == {"no_action": [], "hand_pose": [57], "libero": [7, 10, 13]}
    for name, width in vectors()["raw_action_dims"].items():
        robot = find_embodiment(name)
        if robot.layouts:
            assert robot.find_layout(width).width == width


def _open_widths() -> list[tuple[str, Embodiment]]:
    return [(name, robot) for name, robot in load_embodiments().items() if robot.raw_dim is None]


def test_layout_of_a_variant() -> None:
    assert find_embodiment("hand_pose").find_layout().fields[18] == "right_fingertip_0_x"
    assert find_embodiment("agibotworld").find_layout().find("pose9", "left")[0].channels == slice(19, 28)
    assert find_embodiment("libero").find_layout(13).fields[3] == "rot9d_0"
    assert find_embodiment("droid_lerobot").find_layout().fields == find_embodiment("droid_lerobot").fields
    assert find_embodiment("droid_lerobot").find_layout(10).fields[0] == "x"
    with pytest.raises(ObservationError, match="7 or 10 or 13"):
        find_embodiment("libero").find_layout()
    with pytest.raises(ObservationError, match="a width of 9"):
        find_embodiment("av").find_layout(10)
    with pytest.raises(ObservationError, match="only the number of its channels"):
        find_embodiment("xdof_yam").find_layout()


def test_limits_are_those_that_the_client_keeps() -> None:
    envelope = load_envelope("droid_lerobot")
    limits = find_embodiment("droid_lerobot").limits
    assert limits == tuple((field.min, field.max) for field in envelope.fields)


def test_the_prompt_of_the_policy_has_the_same_framing() -> None:
    robot = find_embodiment("droid_lerobot")
    prompt = build_prompt("Open the drawer", Clip(33, 15.0, (544, 736)))
    assert f'"framing": "{robot.framing()}"' in prompt
    assert robot.framing("wrist_view") == "This video is captured from a wrist-mounted camera."
    assert find_embodiment("abc_yam").framing() == load_viewpoints()["ego_view"]
    with pytest.raises(UsageError, match="did you mean 'wrist_view'"):
        robot.framing("wrist")


def test_tables_that_disagree() -> None:
    with pytest.raises(InternalError, match="fields, units and raw_dim"):
        Embodiment("a", 1, raw_dim=2, fields=("x",), units=("m",))
    with pytest.raises(InternalError, match="limits"):
        Embodiment("a", 1, raw_dim=2, limits=((0.0, 1.0),))


def test_the_page_lists_every_embodiment() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "embodiments.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if "| `" in line]
    listed = {row[0].strip("`"): row for row in rows if len(row) == 6}
    for robot in load_embodiments().values():
        name, domain, widths, channels, method, rate = listed.pop(robot.name)
        known = {layout.width for layout in robot.layouts.values()} | {robot.raw_dim, robot.base_raw_dim}
        assert widths == (", ".join(map(str, sorted(known - {None}))) or "-"), name
        assert int(domain) == robot.domain_id, name
        assert method.split("; ")[0] == (robot.normaliser or "-"), name
        assert rate == ("-" if robot.rate_hz is None else f"{robot.rate_hz:g}"), name
        assert (channels == "-") == (not robot.layouts), name
        for layout in robot.layouts.values():
            assert all(block.kind in channels for block in layout.blocks), name
    assert not listed
    for kind in KINDS:
        assert f"`{kind}`" in page or f"`{kind}*n`" in page


def test_the_pages_blocks_run() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs/embodiments.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(programs) == 4
    made = [{} for _ in programs]
    for program, names in zip(programs, made):
        exec(program, names)
    assert made[1]["seen_from_frame_0"].shape == (61, 4, 4) and made[2]["raw"].tolist() == [[0.5] * 10] * 16
    assert made[3]["actions"].shape == (60, 9)
