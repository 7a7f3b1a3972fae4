"""profile.html: self-contained, escaped, drawn for what there is; opened in a real browser where there is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chromium import needs_chromium, open_page
from page_checks import checked
from profiled_gpu import gpu_document
from profiled_policy import FACTS, document_of

from motedge.profile.compare import compare_profiles
from motedge.profile.measurement import Measurement
from motedge.profile.options import ProfileOptions
from motedge.profile.page.comparison import render_comparison
from motedge.profile.page.render import render_page
from motedge.profile.report import load_profile, profile_document


def test_everything_of_a_gpu() -> None:
    page = render_page(gpu_document())
    assert checked(page).titles == {
        "stages of a tick",
        "denoising steps",
        "ticks over time",
        "share of ticks by time",
        "graphs against the roofline",
        "sensors in W",
        "sensors in MHz",
        "sensors in °C",
    }
    for part in ("of it the GPU", "energy a chunk", "J</div>", "deadline 160 ms", "MAXN", "one CUDA graph", "p99 "):
        assert part in page


def test_steps_of_a_host() -> None:
    page = render_page(document_of([20.0 + 0.1 * number for number in range(12)]))
    assert "denoising steps" in checked(page).titles
    assert "not known" in page and "p99" in page


def test_an_interrupted_run_has_a_page() -> None:
    page = render_page(document_of([20.0] * 3, stopped="interrupted; phase warm, 3 of 100 warm ticks"))
    checked(page)
    assert "incomplete" in page and "3 of 100 warm ticks" in page
    nothing = profile_document(Measurement(origin_s=0.0, stopped="interrupted; loading"), ProfileOptions(), FACTS, None)
    assert "No tick was measured" in render_page(nothing)
    checked(render_page(nothing))


def test_what_comes_from_outside_is_escaped() -> None:
    hostile = '<script>alert("x")</script>'
    facts = {
        "bundle": {**FACTS["bundle"], "name": hostile},
        "observation": {"instruction": hostile, "source": hostile},
        "device": {**FACTS["device"], "cpu": hostile, "board": hostile},
        "versions": {hostile: hostile},
    }
    document = document_of([20.0] * 12, **facts)
    document["notes"] = [hostile]
    document["sensors"]["absent"] = {hostile: hostile}
    assert "<script" not in render_page(document)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_ticks(count: int) -> None:
    checked(render_page(document_of([20.0] * count)))


def _compared(seed: int = 2, scale: float = 1.2) -> str:
    before, after = gpu_document(), gpu_document(seed, scale)
    after["engine"] = {**after["engine"], "recipe": "<b>fp8</b>"}
    return render_comparison(compare_profiles(before, after), before, after)


def test_a_comparison() -> None:
    page = _compared()
    assert checked(page).titles == {"change of each stage", "share of ticks by time, before and after"}
    for part in ("slower by", "&lt;b&gt;fp8", "separate runs", "energy a chunk", "noise"):
        assert part in page
    few = document_of([20.0] * 3)
    checked(render_comparison(compare_profiles(few, few), few, few))


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(dark: bool, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    stopped = document_of([20.0] * 12, stopped="interrupted")
    pages = {"gpu": render_page(gpu_document()), "host": render_page(stopped), "compared": _compared()}
    for name, text in pages.items():
        page = tmp_path / f"{name}.html"
        page.write_text(text, encoding="utf-8")
        assert open_page(page, tmp_path / f"{name}.png", dark=dark) == []
        with pillow.open(tmp_path / f"{name}.png") as picture:
            pixels = picture.convert("RGB")
            corner = pixels.getpixel((2, 2))
            colours = {colour for _, colour in pixels.getcolors(1 << 24) or ()}
        assert (max(corner) < 60) == dark, "the ground follows the theme"
        # Blue and orange of the palette: plots are drawn
        expected = [(111, 163, 242), (240, 153, 74)] if dark else [(39, 103, 201), (204, 98, 16)]
        assert set(expected) <= colours, re.sub(r"\s+", " ", str(sorted(colours)[:10]))


def test_a_profile_that_a_gpu_gave() -> None:
    """benchmarks/results/profile_h200.json, as it was written there: it can be read, drawn and compared."""
    file = Path(__file__).resolve().parents[3] / "benchmarks/results/profile_h200.json"
    document = load_profile(file)
    titles = checked(render_page(document)).titles
    assert {"stages of a tick", "denoising steps", "sensors in W", "sensors in MHz"} <= titles
    tick = compare_profiles(document, document).tick
    assert tick is not None and tick.verdict == "noise" and tick.before_count == 120
