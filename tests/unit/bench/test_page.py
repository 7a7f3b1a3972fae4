"""bench.html: self-contained, escaped, drawn for what there is; opened in a real browser where there is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from bench_scene import FACTS, made_document, run_made, with_energy
from chromium import needs_chromium, open_page
from page_checks import checked

from motedge.bench.journal import Journal
from motedge.bench.page.render import render_page
from motedge.bench.text import bench_lines
from motedge.bench.worker import CellError

_TITLES = {"error against time", "error of each recipe at the same point"}


def _whole(folder: Path, **facts: Any) -> dict[str, Any]:
    journal = Journal(folder, {})
    run_made(journal)
    return made_document(folder, with_energy(journal.lines), **facts)


def test_everything(tmp_path: Path) -> None:
    page = render_page(_whole(tmp_path))
    found = checked(page)
    assert found.titles == _TITLES | {"error against energy"} and found.circles == 18
    for part in ("Complete".lower(), "9 of 9", "fp8 / 2 steps", "J a chunk", "4.00 GB of the GPU", "MAXN"):
        assert part in page


def test_one_of_each_and_another_embodiment(tmp_path: Path) -> None:
    document = _whole(
        tmp_path,
        bundles=[{**FACTS["bundles"][0], "embodiment": "av"}],
        observations={**FACTS["observations"], "count": 1},
        options={**FACTS["options"], "rounds": 1},
    )
    document["candidates"], document["points"] = document["candidates"][:1], document["points"][:1]
    document["cells"] = document["cells"][:1]
    page = render_page(document)
    assert "edge policy, embodiment av, shape set droid" in page
    for part in ("1 recipe at 1 operating point;", "12 ticks a cell in 1 turn, 1 observation (given)"):
        assert part in page
    assert "edge policy, embodiment av" in "\n".join(bench_lines(document))


def test_tiles_are_short(tmp_path: Path) -> None:
    """A tile's value is on one line, and a number is not parted from its unit."""
    found = re.findall(r'class="value">([^<]*)<', render_page(_whole(tmp_path)))
    assert len(found) == 5 and max(map(len, found)) <= 14
    assert "error 9.66\N{NO-BREAK SPACE}%" in render_page(_whole(tmp_path / "again"))


def test_an_interrupted_bench_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    journal, log = Journal(tmp_path, {}), []  # type: ignore[var-annotated]

    def interrupt(name: str, what: str, steps: int) -> None:
        if len(log) > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_made(journal, log, interrupt)
    page = render_page(made_document(tmp_path, journal.lines))
    found = checked(page)
    # Four cells have had all of their turns
    assert found.titles == _TITLES and found.circles == 4
    assert "incomplete" in page and "5 of 9 cells are not measured whole" in page and "(partial)" in page


def test_nothing_measured(tmp_path: Path) -> None:
    page = render_page(made_document(tmp_path, []))
    assert "No cell is measured whole yet" in page and checked(page).circles == 0


def test_failures(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})

    def fail(name: str, what: str, steps: int) -> None:
        if name == "fp8" and what == "open":
            raise CellError("<b>out of memory</b>", got="9 GB")

    run_made(journal, [], fail)
    page = render_page(made_document(tmp_path, journal.lines))
    assert checked(page).circles == 6 and "<b>" not in page and "3 failed" in page and "9 GB" in page


def test_all_without_error_can_be_drawn(tmp_path: Path) -> None:
    """Every cell exact: there is no logarithm of nothing."""
    document = _whole(tmp_path)
    for cell in document["cells"]:
        for name in ("from_shipped", "from_same_point"):
            cell[name] = {**cell[name], "relative_l2": 0.0, "by_observation": [0.0, 0.0]}
    assert checked(render_page(document)).circles == 18
    document["cells"] = document["cells"][:1]
    assert checked(render_page(document)).circles == 2


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>'
    document = _whole(
        tmp_path,
        device={**FACTS["device"], "cpu": hostile, "board": hostile, "power_mode": hostile},
        versions={hostile: hostile},
        bundles=[{**FACTS["bundles"][0], "name": hostile, "model": hostile}],
        notes=[hostile],
        observations={**FACTS["observations"], "kind": hostile},
    )
    for cell in document["cells"]:
        cell["id"] = cell["id"] + hostile
        cell["point"] = hostile
    document["points"][0]["name"] = hostile
    document["sessions"][0]["absent"] = {hostile: hostile}
    assert "<script" not in render_page(document)


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(dark: bool, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pages = {"whole": _whole(tmp_path / "a"), "none": made_document(tmp_path / "b", [])}
    for name, document in pages.items():
        page = tmp_path / f"{name}.html"
        page.write_text(render_page(document), encoding="utf-8")
        assert open_page(page, tmp_path / f"{name}.png", dark=dark) == []
        with pillow.open(tmp_path / f"{name}.png") as picture:
            pixels = picture.convert("RGB")
            corner = pixels.getpixel((2, 2))
            colours = {colour for _, colour in pixels.getcolors(1 << 24) or ()}
        assert (max(corner) < 60) == dark, "the ground follows the theme"
        # Blue, orange and green of the palette: the dots of three recipes
        expected = [(111, 163, 242), (240, 153, 74), (93, 187, 133)] if dark else [(39, 103, 201), (204, 98, 16)]
        assert name == "none" or set(expected) <= colours
