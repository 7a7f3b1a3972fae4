"""report.html: sound markup, nothing from outside, every string escaped, and what it must say."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.page import render_page
from motedge.quant.fidelity.plots import velocity_bars
from motedge.quant.fidelity.report import FidelityReport

MakeReport = Callable[..., FidelityReport]
VOID = ("meta", "br")


class _Page(HTMLParser):
    """Every element closed in order; what would be loaded; the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _pictures(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(picture) for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


@pytest.mark.parametrize("case", ["passed", "failed", "not finite", "not judged", "one layer", "no sites", "no error"])
def test_the_markup_is_sound_and_loads_nothing(case: str, make_report: MakeReport, not_finite: Figures) -> None:
    report = {
        "passed": lambda: make_report(0.01),
        "failed": lambda: make_report(0.5),
        "not finite": lambda: make_report(figures=not_finite),
        "not judged": lambda: make_report(measured=False, size={}),
        "one layer": lambda: make_report(layers=1),
        "no sites": lambda: make_report(sites=[]),
        "no error": lambda: make_report(0.0),
    }[case]()
    page = render_page(report)
    parsed = _Page(page)
    assert parsed.open == [] and parsed.loads == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(parsed.tags)
    for outside in ("http:", "https:", "url(", "@import", "//cdn"):
        assert outside not in page
    for picture in _pictures(page):
        width, height = (float(value) for value in picture.attrib["viewBox"].split()[2:])
        for box in picture.iter("rect"):
            x, y, wide, high = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
            assert (
                wide >= 0 and high >= 0 and x >= 0 and x + wide <= width + 0.11 and y >= 0 and y + high <= height + 0.11
            )
            assert box.findtext("title")
        assert not re.search(r"\b(nan|inf)\b", ElementTree.tostring(picture, "unicode").lower())


def test_strings_are_escaped(make_report: MakeReport) -> None:
    page = render_page(make_report())
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    text = _Page(page).text
    for words in ("a & b", "scene & co", "5 < 6", "mlp.up<proj>", "<script>alert(1)</script>"):
        assert words in text


def test_it_says_what_it_must(make_report: MakeReport) -> None:
    page = render_page(make_report())
    text = _Page(page).text
    for words in (
        "does not predict task success",
        "Weights are random: numbers prove paths, not quality.",
        "a block apart in time",
        "cosine at least 0.999, relative L2 at most 3 %",
        "Predicted latency: none; no target",
        "joint_position_0",
        "fraction closed",
        "rad",
        "K and V of the prompts",
        "revision 3",
        "0: 1, 2",
        "Own loop",
    ):
        assert words in text, words
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


@pytest.mark.parametrize(("level", "status", "css"), [(0.01, "passed", "good"), (0.2, "failed", "bad")])
def test_the_verdict_stands_on_top_with_its_numbers(
    level: float, status: str, css: str, make_report: MakeReport
) -> None:
    report = make_report(level)
    page = render_page(report)
    assert f'<p class="verdict {css}">{status}</p>' in page and f"fidelity {status}</h1>" in page
    top = _Page(page[: page.index("<h2>")]).text
    for entry in report.verdict.deciding:
        assert f"{entry.what}: {status}" in top and entry.cosine is not None and f"{entry.cosine:.6f}" in top


def test_without_held_out_observations_weights_alone_are_shown(make_report: MakeReport) -> None:
    report = make_report(measured=False)
    report.facts["data"].update(held_out=[], measured_on=None)
    text = _Page(render_page(report)).text
    assert "no held-out observations" in text and "not judged" in text and "Each projection" in text
    assert "Velocities" not in text and "Action chunk" not in text
    report = make_report(measured=False, facts={**report.facts, "data": None})
    assert "nothing was calibrated or held out" in _Page(render_page(report)).text


def test_every_number_of_the_maps_is_told_on_hovering(make_report: MakeReport) -> None:
    report = make_report(layers=3)
    titles = [box.findtext("title") or "" for picture in _pictures(render_page(report)) for box in picture.iter("rect")]
    for site in report.sites:
        for figures in (site.weight, site.activation):
            assert figures is None or f"{site.site}, fp8: {figures.sqnr_db:.1f} dB" in titles
    for entry in report.velocities:
        assert any(f"step {entry.step}, {entry.branch}, own loop" in title for title in titles)
    assert sum("mean error" in title for title in titles) == 8 * 8


@pytest.mark.parametrize(("level", "drawn"), [(0.02, True), (0.2, True), (0.0001, False)])
def test_a_gate_far_above_the_bars_is_named_and_not_drawn(level: float, drawn: bool, make_report: MakeReport) -> None:
    picture = ElementTree.fromstring(velocity_bars(make_report(level).velocities, "vision", 0.03))
    assert ("bound" in [line.attrib["class"] for line in picture.iter("line")]) == drawn
    texts = [text.text or "" for text in picture.iter("text")]
    assert "gate" in texts and any(text.startswith("3 %") for text in texts)


def test_bars_stand_on_zero_and_are_as_high_as_their_values(make_report: MakeReport) -> None:
    """A bar that is cut off below would make a small difference look large."""
    report = make_report(0.05)
    picture = ElementTree.fromstring(velocity_bars(report.velocities, "action", 0.03))
    boxes = list(picture.iter("rect"))
    values = [
        figures.relative_l2
        for entry in report.velocities
        if entry.tensor == "action"
        for figures in (entry.teacher_forced, entry.free_running)
    ]
    heights = [float(box.attrib["height"]) for box in boxes]
    assert len(heights) == len(values)
    for height, value in zip(heights, values, strict=True):
        assert value is not None and height / heights[0] == pytest.approx(value / (values[0] or 1), abs=0.01)
    bottoms = {round(float(box.attrib["y"]) + float(box.attrib["height"])) for box in boxes}
    assert len(bottoms) == 1


def test_a_predicted_latency_is_shown_with_its_interval(make_report: MakeReport) -> None:
    latency = {"predicted_ms": 366.9, "low_ms": 300.0, "high_ms": 450.0, "unquantized_ms": 999.6, "target": "a-thor"}
    text = _Page(render_page(dataclasses.replace(make_report(), latency=latency))).text
    assert "Predicted tick on a-thor: 367 ms (300 ms to 450 ms), unquantized 1 s" in text
    assert "not measured" in text
