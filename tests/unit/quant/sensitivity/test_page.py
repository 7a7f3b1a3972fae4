"""The page of a made-up search: sound markup, nothing from outside, and what it must say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import pytest

from motedge.quant.page.svg import Axis
from motedge.quant.sensitivity.maps import cost_limits, shade
from motedge.quant.sensitivity.page import render_page

SITES = [("gen_step", layer, projection) for layer in range(40) for projection in ("self_attn.q<k", "mlp.up_proj")]
SITES += [("und_prefill", 0, "self_attn.to_k")]


def _point(name: str, kind: str, bits: float, error: float | None) -> dict[str, Any]:
    keys = ("added", "predicted", "error", "action", "vision", "held_out_chunk", "held_out_latent")
    errors = dict.fromkeys(keys, error) | {"predicted": 0.01 if error is None else error}
    return {"name": name, "kind": kind, "bits": bits, "bytes": int(bits * 1000), "schemes": {"fp8": 3}, **errors}


def _report(points: list[dict[str, Any]]) -> dict[str, Any]:
    costs = {"fp8": {"vision": 1e-4, "action": 1e-3, "cost": 1e-3}, "nvfp4": {"impossible": "is all <zeros>"}}
    sites = [
        {
            "graph": graph,
            "site": f"layers.{layer}.{projection}",
            "layer": layer,
            "projection": projection,
            "weights": 10,
            "costs": costs,
        }
        for graph, layer, projection in SITES
    ]
    assignment: dict[str, dict[str, str]] = {"gen_step": {}, "und_prefill": {}}
    for site in sites:
        assignment[site["graph"]][site["site"]] = "none" if site["layer"] % 2 else "fp8"
    return {
        "model": {"family": "edge", "variant": "a & b", "revision": None, "checkpoint": {"name": "<script>"}},
        "identity": {"dataset": "scene"},
        "metric": "action",
        "target": {"words": "at most 3 %", "max_error": 0.03, "max_bytes": None, "max_bits": None},
        "schemes": {"fp8": {}, "nvfp4": {}},
        "forwards": {"0 conditional": 2},
        "held_out": 2,
        "sites": sites,
        "steps": {"fp8": [{"step": 0, "t": 999, "chunk": 0.1, "latent": 0.2}, {"step": 1, "t": 5, "impossible": "x"}]},
        "points": points,
        "chosen": {**points[0], "met": False, "assignment": assignment},
        "caveats": ["open-loop error does not predict task success"],
        "notes": ["5 < 6"],
    }


POINTS = [
    _point("uniform fp8", "uniform", 8.0, 0.02),
    _point("mixture 1 of 2", "front", 6.0, 0.05),
    _point("mixture 2 of 2", "front", 12.0, None),
    _point("nothing", "target", 16.0, 0.0),
]


class _Balanced(HTMLParser):
    """Every element closed in order; attributes that would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_markup_is_sound_and_loads_nothing() -> None:
    page = render_page(_report(POINTS))
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == [] and parser.loads == []
    assert "<script" not in page and "url(" not in page and "@import" not in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    # Two plots, two towers' mixtures, two schemes of two towers, steps
    assert len(pictures) == 2 + 2 + 4 + 1
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "nan" not in picture.lower() and "inf" not in picture.lower()


def test_it_says_what_was_found_and_what_is_not_known() -> None:
    page = render_page(_report(POINTS))
    for words in ("not kept", "at most 3 %", "does not predict task success", "5 &lt; 6", "not finite", "a &amp; b"):
        assert words in page
    assert "is all &lt;zeros&gt;" in page and "prefers-color-scheme: dark" in page


def test_a_search_in_which_nothing_is_quantized_has_a_page() -> None:
    page = render_page(_report([_point("nothing", "target", 16.0, 0.0)]))
    assert "there is no error to plot" in page


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.3), (0.02, 0.021), (1e-6, 1.0)])
def test_ticks_lie_on_their_axis(low: float, high: float) -> None:
    axis = Axis(low, high, 300, 0, log=True)
    assert axis.at(low) == pytest.approx(300) and axis.at(high) == pytest.approx(0)
    assert all(0 <= axis.at(tick) <= 300 for tick in axis.ticks())


def test_shades_cover_the_range() -> None:
    report = _report(POINTS)
    limits = cost_limits(report["sites"])
    assert [shade(error, (1e-3, 1.0)) for error in (0.0, 1e-3, 0.0316, 1.0, 5.0)] == [0, 0, 4, 8, 8]
    assert limits[0] == limits[1] and shade(limits[0], limits) == 0
