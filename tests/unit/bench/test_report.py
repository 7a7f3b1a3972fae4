"""bench.json and its table: what is in each cell, the fronts, failed and missing cells."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_scene import FORWARD_MS, QUICK, made_document, run_made, with_energy

from motedge.bench.journal import Journal
from motedge.bench.page.render import render_page
from motedge.bench.report import load_bench
from motedge.bench.text import bench_lines
from motedge.bench.worker import CellError
from motedge.errors import DataError
from motedge.files import write_json


def test_every_cell(tmp_path: Path) -> None:
    document = made_document(tmp_path)
    assert document["complete"] and document["reference"] == {"candidate": "unquantized", "point": "shipped"}
    cells = {cell["id"]: cell for cell in document["cells"]}
    assert len(cells) == 9
    shipped, other = cells["unquantized / shipped"], cells["fp8 / 2 steps"]
    assert shipped["from_shipped"]["relative_l2"] == 0 and shipped["of_reference"]["ratio"] == 1
    assert other["latency_ms"]["count"] == 12 and other["latency_ms"]["p50"] == pytest.approx(5 + 4 * 6, rel=0.01)
    assert other["median_interval"]["low"] <= other["latency_ms"]["p50"] <= other["median_interval"]["high"]
    assert other["of_reference"]["ratio"] == pytest.approx(29 / 85, rel=0.02)
    # The recipe's own share is its offset, the settings' share is more
    assert 0 < other["from_same_point"]["relative_l2"] < 0.2 * other["from_shipped"]["relative_l2"]
    assert cells["unquantized / 2 steps"]["from_same_point"]["relative_l2"] == 0
    assert [group["unit"] for group in other["from_shipped"]["groups"]] == ["rad", "fraction closed"]
    assert other["forwards"] == [4, 4] and other["scenes"] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert document["candidates"][1]["memory"]["peak_bytes"] == 1_200_000_000
    json.dumps(document, allow_nan=False)


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    document = made_document(tmp_path)
    cells = document["cells"]
    on = {cell["id"] for cell in cells if cell["front"]["time"]}
    costs = {cell["id"]: (cell["latency_ms"]["p50"], cell["from_shipped"]["relative_l2"]) for cell in cells}
    for name, (ms, error) in costs.items():
        beaten = any(a <= ms and b <= error and (a, b) != (ms, error) for a, b in costs.values())
        assert (name in on) == (not beaten)
    assert {"unquantized / shipped", "fp8 / shipped", "fp8 / 1 step"} <= on and "int4-awq / shipped" not in on
    assert all(cell["front"]["time_share"] == 1 for cell in cells if cell["id"] == "unquantized / shipped")
    assert all(cell["front"]["energy"] is None for cell in cells)


def test_energy_has_a_front_of_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})
    run_made(journal)
    cells = made_document(tmp_path, with_energy(journal.lines))["cells"]
    assert {cell["energy"]["per_chunk_j"] for cell in cells} == {0.5 * ms for ms in FORWARD_MS.values()}
    on = {cell["id"] for cell in cells if cell["front"]["energy"]}
    # Energy is the recipe's alone in this scene: at each the nearest cell is the one as shipped
    assert on == {"unquantized / shipped", "fp8 / shipped"}
    assert all(cell["front"]["all"] for cell in cells if cell["front"]["time"] or cell["front"]["energy"])


def _failed(folder: Path) -> dict[str, object]:
    journal = Journal(folder, {})

    def fail(name: str, what: str, steps: int) -> None:
        if name == "int4-awq" and what == "open":
            raise CellError("out of memory", got="9 GB")
        if (name, what, steps) == ("unquantized", "answers", 2):
            raise CellError("NaN in graph 'gen_step'")

    run_made(journal, [], fail)
    return made_document(folder, journal.lines)


def test_failed_cells_are_told_and_are_on_no_front(tmp_path: Path) -> None:
    document = _failed(tmp_path)
    assert document["complete"]
    cells = {cell["id"]: cell for cell in document["cells"]}  # type: ignore[attr-defined]
    assert cells["int4-awq / 1 step"]["status"] == "failed" and "9 GB" in cells["int4-awq / 1 step"]["error"]
    assert not cells["int4-awq / 1 step"]["front"]["time"]
    # Against shipped it is known; against the reference at the same point, which failed, it is not
    assert cells["fp8 / 2 steps"]["from_shipped"] is not None and cells["fp8 / 2 steps"]["from_same_point"] is None
    text = "\n".join(bench_lines(document))
    assert "failed       int4-awq / shipped, int4-awq / 2 steps, int4-awq / 1 step: out of memory" in text
    assert "failed       unquantized / 2 steps: NaN in graph" in text


def test_a_reference_that_failed_leaves_times_without_errors(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})

    def fail(name: str, what: str, steps: int) -> None:
        if (name, what, steps) == ("unquantized", "answers", 4):
            raise CellError("out of memory")

    run_made(journal, [], fail)
    document = made_document(tmp_path, journal.lines)
    other = document["cells"][3]
    assert other["id"] == "fp8 / shipped" and other["latency_ms"]["count"] == 12
    assert other["from_shipped"] is None and other["of_reference"] is None and not other["front"]["time"]
    assert "\n".join(bench_lines(document))


SLOWER = 1.5


def _retried(journal: Journal) -> list[Any]:
    """A cell fails and is tried again in a session in which the machine is slower: every tick takes SLOWER times as
    long."""

    def fail(name: str, what: str, steps: int) -> None:
        if (name, what, steps) == ("fp8", "answers", 2):
            raise CellError("out of memory")

    run_made(journal, [], fail)
    run_made(journal, retry=True)
    return [
        {**line, "ms": [SLOWER * ms for ms in line["ms"]]} if line.get("session") == 1 and "ms" in line else line
        for line in journal.lines
    ]


def test_a_retried_cell_is_held_against_the_reference_of_its_own_session(tmp_path: Path) -> None:
    """What the machine was slower by is not the recipe's: the same share as in a bench in which nothing failed."""
    document = made_document(tmp_path, _retried(Journal(tmp_path, {})))
    cells = {cell["id"]: cell for cell in document["cells"]}
    other = cells["fp8 / 2 steps"]
    assert other["sessions"] == [1] and other["latency_ms"]["p50"] == pytest.approx(SLOWER * 29, rel=0.01)
    assert other["of_reference"]["ratio"] == pytest.approx(29 / 85, rel=0.02)
    assert other["of_reference"]["turns"] == 4
    # And the reference's own figures are those of the first session
    assert cells["unquantized / shipped"]["latency_ms"]["p50"] == pytest.approx(85, rel=0.01)
    assert all(cell["front"]["time_share"] is not None for cell in document["cells"])
    assert not any("no share" in note for note in document["notes"])


def test_turns_of_another_session_give_neither_ratio_nor_share(tmp_path: Path) -> None:
    """A journal in which the reference was not timed anew."""
    lines = [line for line in _retried(Journal(tmp_path, {})) if line["kind"] != "beside"]
    document = made_document(tmp_path, lines)
    cells = {cell["id"]: cell for cell in document["cells"]}
    assert cells["fp8 / 2 steps"]["of_reference"] is None and cells["fp8 / 1 step"]["of_reference"] is not None
    assert all(cell["front"]["time_share"] is None for cell in document["cells"])
    told = "no share of the reference's time: fp8 / 2 steps: fewer than 3 turns beside the reference's, in one session"
    for page in ("\n".join(bench_lines(document)), html.unescape(render_page(document))):
        assert told in page and "no share of the front" in page


def test_one_at_a_time_only_points_of_one_recipe_are_side_by_side(tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, one_at_a_time=True)
    journal = Journal(tmp_path, {})
    run_made(journal, options=options)
    document = made_document(tmp_path, journal.lines, options=options.to_dict())
    for cell in document["cells"]:
        assert (cell["of_reference"] is not None) == (cell["candidate"] == "unquantized")
        assert cell["front"]["time_share"] is None and cell["median_interval"] is not None
    text = "\n".join(bench_lines(document))
    assert "and 3 more: fewer than 3 turns" in text and "recipes took no turns with each other" in text


@pytest.mark.parametrize(("rounds", "narrow"), [(11, True), (12, False)])
def test_few_turns_are_said_to_be_too_narrow(tmp_path: Path, rounds: int, narrow: bool) -> None:
    options = dataclasses.replace(QUICK, rounds=rounds)
    journal = Journal(tmp_path, {})
    run_made(journal, options=options)
    document = made_document(tmp_path, journal.lines, options=options.to_dict())
    for page in ("\n".join(bench_lines(document)), render_page(document)):
        assert (f"intervals are from as few as {rounds} turns: too narrow" in page) == narrow


def test_nothing_yet(tmp_path: Path) -> None:
    document = made_document(tmp_path, [])
    assert not document["complete"] and all(cell["status"] == "pending" for cell in document["cells"])
    assert "INCOMPLETE   stopped before its end: 9 of 9 cells" in "\n".join(bench_lines(document))


def test_the_table(tmp_path: Path) -> None:
    lines = bench_lines(made_document(tmp_path, energy_absent="no sensor here tells of power"))
    row = next(line for line in lines if "fp8 / shipped" in line)
    assert row.startswith("* fp8 / shipped") and "53" in row and "rad, " in row
    text = "\n".join(lines)
    for part in (
        "4.00 GB of the GPU, 1.00 GB resident, at most 1.20 GB",
        "no sensor here tells of power",
        "p99 is told",
    ):
        assert part in text
    quiet = "\n".join(bench_lines(made_document(tmp_path / "b", notes=["left out: x"])))
    assert "note         left out: x" in quiet


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (["gpu"], "of the GPU alone: no sensor here tells"),
        (["cpu"], "of the processor alone"),
        (["cpu", "gpu"], "of GPU and processor"),
        (["board"], "of the whole board"),
    ],
)
def test_whose_energy_it_is(tmp_path: Path, of: list[str], words: str) -> None:
    journal = Journal(tmp_path, {})
    run_made(journal)
    lines = with_energy(journal.lines)
    for line in lines:
        if line["kind"] == "energy":
            line["energy"]["of"] = of
    document = made_document(tmp_path, lines)
    assert f"energy       {words}" in "\n".join(bench_lines(document))
    assert f"<dd>{words}" in render_page(document)


def test_reading_it(tmp_path: Path) -> None:
    write_json(tmp_path / "bench.json", made_document(tmp_path / "a"))
    assert load_bench(tmp_path) == load_bench(tmp_path / "bench.json")
    for content in ('{"schema": "motedge.bench/v9"}', "[]", "nonsense"):
        (tmp_path / "bench.json").write_text(content)
        with pytest.raises(DataError):
            load_bench(tmp_path)
    with pytest.raises(DataError, match="there is no bench"):
        load_bench(tmp_path / "none")


def test_percentiles_are_numpys(tmp_path: Path) -> None:
    for cell in made_document(tmp_path)["cells"]:
        assert cell["latency_ms"]["p50"] == pytest.approx(np.median(cell["ms"]), abs=1e-6)
        assert cell["latency_ms"]["p99"] is None
