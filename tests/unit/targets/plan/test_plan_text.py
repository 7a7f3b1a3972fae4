from __future__ import annotations

import dataclasses
import re

from plan_scene import GB, make, refused

from motedge.targets.catalog import load_target
from motedge.targets.legality import Reason
from motedge.targets.plan.make import TargetPlan
from motedge.targets.plan.page import render_page
from motedge.targets.plan.text import all_lines, fits_word, headline, plan_lines

ORIN = "jetson-orin-nano-8gb"


def test_the_headline_says_memory_and_time() -> None:
    words = headline(make())
    assert words.startswith("fits: 5.00 GB of 7.00 GB") and "15 Hz: yes, a tick of 600 ms (500 ms to 750 ms)" in words
    assert headline(refused()).startswith("does not fit: 9.00 GB of 7.00 GB")
    small = dataclasses.replace(make().build, available_bytes=5 * GB, fits=False)
    assert "can't be built there: gen_step takes 6.00 GB of 5.00 GB" in headline(make(build=small))
    assert "15 Hz" not in headline(make(tick=None))


def test_one_word() -> None:
    assert [fits_word(plan) for plan in (make(), refused())] == ["yes", "no"]
    assert fits_word(make(build=dataclasses.replace(make().build, fits=False))) == "not to build"
    assert fits_word(make(memory=dataclasses.replace(make().memory, available_bytes=None, fits=None))) == "unknown"


def test_every_item_advice_and_note_is_shown() -> None:
    plan = dataclasses.replace(refused(), notes=("tight",))
    shown = "\n".join(plan_lines(plan))
    for words in (
        "gen_step engine",
        "runtime on the host",
        "recipe int4-awq",
        "tight",
        "while loading",
        "8.00 GB in all",
    ):
        assert words in shown, words


def test_reasons_name_their_graphs_once() -> None:
    reason = Reason("fp8 needs 8.9", "support matrix")
    plan = make(graphs=tuple(dataclasses.replace(graph, reasons=(reason,)) for graph in make().graphs))
    lines = [line for line in plan_lines(plan) if line.startswith("not legal")]
    assert lines == ["not legal  gen_step, und_prefill: fp8 needs 8.9 (support matrix)"]


def test_side_by_side_with_those_that_have_no_plan() -> None:
    entries = [TargetPlan(load_target(ORIN), make()), TargetPlan(load_target("cpu"), None, "no variant")]
    lines = list(all_lines(entries))
    assert lines[1].split()[0] == ORIN and "yes" in lines[1]
    assert lines[-1] == "cpu: no plan: no variant"


def test_the_page_stands_alone_and_draws_what_was_planned() -> None:
    late = dataclasses.replace(make().tick.points[0], in_time="no", tick_s=4.0, low_s=3.0, high_s=5.0)  # type: ignore[union-attr]
    tick = dataclasses.replace(make().tick, points=(late,))  # type: ignore[type-var]
    entries = [
        TargetPlan(load_target(ORIN), refused()),
        TargetPlan(load_target("jetson-orin-nx-16gb"), make(target="jetson-orin-nx-16gb", tick=tick)),
        TargetPlan(load_target("cpu"), None, "no variant <here>"),
    ]
    page = render_page(entries)
    assert "prefers-color-scheme: dark" in page and "<script" not in page and "src=" not in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 2
    assert "too much" in pictures[0] and pictures[0].count("jetson-orin-nano-8gb") >= 1
    assert "control period" in pictures[1] and "4 s, no" in pictures[1]
    assert "no variant &lt;here&gt;" in page


def test_a_page_of_one_device() -> None:
    page = render_page([TargetPlan(load_target(ORIN), refused())])
    assert "Jetson Orin Nano 8 GB" in page and "recipe int4-awq" in page
