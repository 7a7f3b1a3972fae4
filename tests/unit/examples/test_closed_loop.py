"""The closed-loop benchmark of examples/train_small: rows, journal, statistics, figures."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")
pytest.importorskip("scipy", reason="the comparisons need motedge[drive]")

import examples_package  # noqa: F401
from chromium import needs_chromium, open_page

from examples.train_small.closed_loop import journal as journals
from examples.train_small.closed_loop import run
from examples.train_small.closed_loop.bundles import gate_verdict
from examples.train_small.closed_loop.drivers import BundleSpec, Drivers
from examples.train_small.closed_loop.figures import collect
from examples.train_small.closed_loop.journal import Journal
from examples.train_small.closed_loop.open_loop import open_loop_errors, record_held_out
from examples.train_small.closed_loop.page import render_page, write_page
from examples.train_small.closed_loop.plots import pareto_front
from examples.train_small.closed_loop.rows import (
    CONDITIONS,
    EXPERT,
    HARDER,
    POINTS,
    REFERENCE,
    STRAIGHT,
    Row,
    plan_rows,
)
from examples.train_small.closed_loop.run import measure
from examples.train_small.closed_loop.statistics import paired, rank_correlation
from examples.train_small.drive.drive import Conditions
from examples.train_small.drive.drivers import StraightAhead
from examples.train_small.road.instructions import BEHAVIOURS, HELD_OUT
from examples.train_small.road.simulator import Simulator
from motedge.errors import BundleError, DataError, UsageError
from motedge.quant.fidelity import report as reports
from motedge.quant.fidelity.verdict import Deciding, Verdict

TIMES = [8.0, 9.0]


@pytest.fixture
def bundle(tmp_path: Path) -> BundleSpec:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return BundleSpec(folder)


def drive(success: bool, behaviour: str = "left", done: str = "") -> dict[str, Any]:
    return {
        "success": success,
        "progress": 0.9,
        "off_s": 0.0 if success else 2.0,
        "obeyed": 1.0,
        "done": done or (behaviour if success else "off the road"),
        "line_m": None if behaviour == "stop" else 0.5,
        "way_m": 2.0 if behaviour == "stop" else 100.0,
        "error_m": 0.2,
        "plan_ms": TIMES,
    }


def test_rows_are_named_apart_and_cover_what_is_asked_for() -> None:
    rows = plan_rows((REFERENCE, "untrained", "fp8"), 25)
    assert len({row.id for row in rows}) == len(rows)
    assert all(len(row.drives()) == 100 for row in rows)
    reference = [row for row in rows if row.driver == REFERENCE]
    assert {row.point for row in reference} == set(POINTS)
    assert {row.condition for row in reference} == set(CONDITIONS)
    assert {row.condition for row in rows if row.driver == "fp8"} == {"as trained", *HARDER}
    assert {row.driver for row in rows} == {EXPERT, STRAIGHT, REFERENCE, "untrained", "fp8"}
    assert min(seed for seed, _ in rows[0].drives()) == 200_000


def test_words_are_those_of_the_row() -> None:
    assert Row(REFERENCE, condition="held-out words").instruction("stop") == HELD_OUT["stop"]
    assert Row(REFERENCE).instruction("stop") == "Stop the car."
    assert Row(REFERENCE, "guidance 3").sampler == {"guidance": 3.0} and Row(REFERENCE).sampler == {"guidance": 1.0}


@pytest.mark.parametrize("change", [{"point": "4 step"}, {"condition": "as train"}, {"seeds": 0}])
def test_rows_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Row(REFERENCE, **change)


def test_no_row_is_left() -> None:
    with pytest.raises(UsageError, match="no row is left"):
        plan_rows((REFERENCE,), 25, ("fp5",))


def test_the_journal_goes_on_after_a_kill(tmp_path: Path, bundle: BundleSpec) -> None:
    path = tmp_path / "work" / "journal.jsonl"
    first = Journal(path, {"fp32": bundle})
    first.add_drive("row", 200_000, "left", drive(True))
    first.add_open_loop("fp32, 4 steps", [0.1, 0.2])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"row": "row", "seed": 2000')
    again = Journal(path, {"fp32": bundle})
    assert path.read_bytes() == whole, "the half-written line is gone, and nothing is written twice"
    assert again.drives == first.drives and again.open_loop == first.open_loop and again.bundles == first.bundles
    again.add_drive("row", 200_001, "left", drive(False))
    assert len(Journal(path, {}).drives) == 2


def test_the_journal_of_another_bundle(tmp_path: Path, bundle: BundleSpec) -> None:
    Journal(tmp_path / "journal.jsonl", {"fp32": bundle})
    with pytest.raises(UsageError, match="recipe fp8"):
        Journal(tmp_path / "journal.jsonl", {"fp32": replace(bundle, recipe="fp8")})
    with pytest.raises(BundleError, match="no bundle at"):
        Journal(tmp_path / "journal.jsonl", {"fp8": BundleSpec(tmp_path)})
    (bundle.path / "manifest.json").write_text('{"other": 1}')
    with pytest.raises(UsageError, match="another bundle was driven as 'fp32'"):
        Journal(tmp_path / "journal.jsonl", {"fp32": bundle})


def test_the_journal_of_another_machine(tmp_path: Path) -> None:
    path, session = tmp_path / "journal.jsonl", {"cpu": "a", "workers": 2, "commit": "1", "date": "today"}
    Journal(path, {}).begin(session)
    again = Journal(path, {})
    again.begin({**session, "commit": "2", "date": "tomorrow"})
    assert [known["commit"] for known in Journal(path, {}).sessions] == ["1", "2"]
    for change in ({"cpu": "b"}, {"workers": 1}, {"versions": {"onnxruntime": "1.30"}}):
        before = path.read_bytes()
        with pytest.raises(UsageError, match="measured under other conditions"):
            Journal(path, {}).begin({**session, **change})
        assert path.read_bytes() == before


def test_the_journal_of_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path / "journal.jsonl", {})
    monkeypatch.setattr(journals, "program_hash", lambda: "other")
    with pytest.raises(UsageError, match="begun by another version"):
        Journal(tmp_path / "journal.jsonl", {})


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"row": "a"}', b"[1]"])
def test_a_damaged_journal(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {}).add_drive("row", 1, "left", drive(True))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[1], b""]))
    with pytest.raises(DataError, match=r"line 2 of .* is damaged"):
        Journal(path, {})


def outcomes(successes: str, seeds: int) -> dict[tuple[int, str], bool]:
    keys = itertools.product(range(seeds), BEHAVIOURS)
    return {key: mark == "1" for key, mark in zip(keys, successes, strict=True)}


def test_mcnemar_against_the_binomial() -> None:
    first, second = outcomes("1111" * 10, 10), outcomes("0111" * 8 + "1111" * 2, 10)
    found = paired(first, second)
    assert found is not None
    assert (found.drives, found.first_only, found.second_only) == (40, 8, 0)
    # Two-sided: 2 * 0.5^8
    assert found.p == pytest.approx(2 * 0.5**8)
    small = paired(outcomes("1" * 80, 20), outcomes("0" * 80, 20))
    assert small is not None and small.to_dict()["p"] == pytest.approx(2 * 0.5**80, rel=0.01)
    assert found.difference == -0.2 and found.low < -0.2 < found.high <= 0


def test_rows_that_do_alike() -> None:
    same = paired(outcomes("1111", 1), outcomes("1111", 1))
    assert same is not None and same.p == 1.0 and (same.low, same.difference, same.high) == (0, 0, 0)
    assert paired(outcomes("1111", 1), {}) is None


def test_roads_are_drawn_whole() -> None:
    """All four drives of half the roads differ: an interval that took them one by one would be half as wide."""
    first, second = outcomes("1" * 80, 20), outcomes(("1111" + "0000") * 10, 20)
    found = paired(first, second)
    assert found is not None
    # A share of one half over 20 roads: 1.96 * sqrt(0.25 / 20) = 0.22 each way
    assert found.high - found.low == pytest.approx(0.44, abs=0.06)


def test_rank_correlation() -> None:
    x = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert rank_correlation(x, [9.0, 8.0, 7.0, 6.0, 5.0, 1.0]).rho == pytest.approx(-1)
    found = rank_correlation(x, [3.0, 1.0, 2.0, 6.0, 4.0, 5.0])
    # 1 - 6 * (4 + 1 + 1 + 4 + 1 + 1) / (6 * 35)
    assert found.rho == pytest.approx(1 - 6 * 12 / 210)
    assert found.low is not None and found.high is not None and found.low < found.rho < found.high
    # Ties share the mean rank: 1.5, 1.5, 3, 4, 5 against 1 to 5, Pearson's of the ranks
    tied = rank_correlation([1, 1, 2, 3, 4], [1, 2, 3, 4, 5]).rho
    assert tied == pytest.approx(float(np.corrcoef([1.5, 1.5, 3, 4, 5], [1, 2, 3, 4, 5])[0, 1]))


def test_no_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [1, 2, 3]).reason == "fewer than 5 rows"
    flat = rank_correlation(range(6), [1.0] * 6)
    assert flat.rho is None and "the same in all rows" in flat.reason
    with pytest.raises(ValueError, match="6 and 5"):
        rank_correlation(range(6), range(5))


def test_figures_of_rows(tmp_path: Path) -> None:
    rows = [Row(REFERENCE, seeds=5), Row("fp8", seeds=5), Row("fp8", condition=HARDER[0], seeds=5)]
    journal = Journal(tmp_path / "journal.jsonl", {})
    for seed, name in rows[0].drives():
        journal.add_drive(rows[0].id, seed, name, drive(True, name))
        journal.add_drive(rows[1].id, seed, name, drive(name != "left", name, "" if name != "left" else "right"))
    journal.add_open_loop(rows[0].model, [0.1, 0.3])
    found = collect(rows, journal)
    first, second = found["rows"]
    assert (first["successes"], first["drives"], first["planned"]) == (20, 20, 20)
    assert second["success"] == 0.75 and second["interval"][0] < 0.75 < second["interval"][1]
    assert second["done"]["left"] == {"right": 5} and second["by_behaviour"]["left"] == [0, 5]
    assert first["open_loop_m"] == {"mean": 0.2, "p90": 0.28, "count": 2} and second["open_loop_m"] is None
    assert first["plan_ms"] == {"p50": 8.5, "p99": None, "count": 40}
    assert first["line_m"] == 0.5 and first["stopping_m"] == 2.0
    assert [(pair["first"], pair["second"], pair["first_only"]) for pair in found["pairs"]] == [
        ("fp32, 4 steps, as trained", "fp8, 4 steps, as trained", 5)
    ]
    assert all(entry["rho"] is None and entry["reason"] for entry in found["correlations"])
    json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    made = Simulator()
    yield made
    made.close()


def test_open_loop_errors_of_who_does_not_look(simulator: Simulator) -> None:
    held_out = record_held_out(simulator, 1)
    assert held_out.frames.shape == (4, 96, 96, 3) and held_out.plans.shape == (4, 4, 16, 9)
    errors = open_loop_errors(StraightAhead(), held_out, simulator)
    # Who is to stop and drives on at 8 m/s is off by the mean of 0.8, 1.6, ... 12.8 m
    assert errors[3::4] == [pytest.approx(6.8)] * 4 and all(map(math.isfinite, errors))


def test_a_budget_ends_a_run_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONDITIONS, "as trained", Conditions(seconds=1))
    monkeypatch.setattr(run, "record_held_out", lambda simulator: record_held_out(simulator, 1))
    told: list[str] = []
    rows = [Row(STRAIGHT, seeds=1)]
    path = tmp_path / "journal.jsonl"
    assert not measure(rows, Drivers({}), Journal(path, {}), 0.0)
    assert not Journal(path, {}).drives
    assert measure(rows, Drivers({}), Journal(path, {}), None, told.append)
    before = path.read_bytes()
    assert measure(rows, Drivers({}), Journal(path, {}), None)
    assert path.read_bytes() == before and told == ["1 roads of 1: 4 drives"]
    assert [line["line_m"] is None for line in Journal(path, {}).drives.values()] == [False, False, False, True]


@pytest.mark.slow
def test_processes_drive_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "record_held_out", lambda simulator: record_held_out(simulator, 1))
    # The processes take the path over from this one, but not what was put beside it
    (tmp_path / "path").mkdir()
    (tmp_path / "path/examples").symlink_to(Path(__file__).resolve().parents[3] / "examples")
    monkeypatch.syspath_prepend(tmp_path / "path")
    rows, found = [Row(STRAIGHT, seeds=2)], {}
    for workers in (1, 2):
        journal = Journal(tmp_path / f"{workers}.jsonl", {})
        assert measure(rows, Drivers({}), journal, workers=workers)
        found[workers] = {key: {**drive, "plan_ms": None} for key, drive in journal.drives.items()}
    assert len(found[1]) == 8 and found[1] == found[2]


def test_an_unknown_driver() -> None:
    with pytest.raises(UsageError, match="nobody drives as 'fp7'"):
        Drivers({}).of(Row("fp7"))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As benchmarks/closed_loop.py makes it, of made-up drives."""
    bundles = (REFERENCE, "fp8", "untrained")
    rows = plan_rows(bundles, 2)
    journal = Journal(tmp_path_factory.mktemp("result") / "journal.jsonl", {})
    for number, row in enumerate(rows):
        for seed, name in row.drives():
            journal.add_drive(row.id, seed, name, drive(row.driver != "untrained" and (seed + number) % 7 > 0, name))
        if row.driver != EXPERT:
            journal.add_open_loop(row.model, [0.1 * (number + 1)] * 4)
    conditions = {
        **{"cpu": "made up", "threads": 1, "usable_cores": 2, "commit": "c0ffee", "uncommitted_changes": False},
        **{"load_average": [0.1], "load_average_after": [0.2], "versions": {"numpy": "2"}, "simulator": {"box2d": "2"}},
        "date": "2025-01-01",
    }
    spec = {"recipe": "<fp8>", "variant": None, "manifest_sha256": "0" * 64}
    return {
        "conditions": conditions,
        "complete": False,
        "roads": {"first_seed": 200_000, "count": 2},
        "bundles": {name: {**spec, "towers_mb": 1.0 + number} for number, name in enumerate(bundles)},
        **collect(rows, journal),
    }


def test_the_page_has_every_row_and_nothing_from_outside(result: dict[str, Any], tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", result)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"{row['successes']}/{row['drives']}" in page for row in result["rows"])
    assert "not all rows were driven" in page and "&lt;fp8&gt;" in page and "<fp8>" not in page
    as_trained = [row for row in result["rows"] if row["condition"] == "as trained"]
    assert page.count("<svg") == 4 and page.count("<h3>") == len(as_trained)
    assert not re.search(r"<script|https?://|url\(", page) and list(tmp_path.iterdir()) == [tmp_path / "page.html"]


def test_a_page_of_little(result: dict[str, Any]) -> None:
    """Interrupted before the reference drove."""
    rows = [row for row in result["rows"] if row["driver"] == EXPERT]
    page = render_page({**result, "rows": rows, "pairs": [], "correlations": []})
    assert page.count("Nothing of it was driven.") == 4


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(result: dict[str, Any], tmp_path: Path, dark: bool) -> None:
    pillow = pytest.importorskip("PIL.Image")
    red = (255, 0, 0)
    pillow.new("RGB", (48, 56), red).save(tmp_path / "film.webp", lossless=True)
    write_page(tmp_path / "page.html", result, tmp_path / "film.webp")
    assert open_page(tmp_path / "page.html", tmp_path / "page.png", dark=dark) == []
    with pillow.open(tmp_path / "page.png") as picture:
        pixels = picture.convert("RGB")
        corner = pixels.getpixel((2, 2))
        colours = {colour for _, colour in pixels.getcolors(1 << 24) or ()}
    assert (max(corner) < 60) == dark, "the ground follows the theme"
    # Blue and orange of the palette: the dots of the reference and of the recipes; and the film
    assert {red, *([(111, 163, 242), (240, 153, 74)] if dark else [(39, 103, 201), (204, 98, 16)])} <= colours


def test_the_pareto_front() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (1.0, 0.4), (4.0, 0.9), (5.0, 1.0)]
    assert pareto_front(points) == [(1.0, 0.5), (3.0, 0.9), (5.0, 1.0)]


def test_what_the_gate_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate_verdict(tmp_path, None) is None and gate_verdict(tmp_path, "fp8") is None
    report = tmp_path / "fidelity" / "fp8" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    with pytest.raises(BundleError, match="no fidelity report"):
        gate_verdict(tmp_path, "fp8")
    verdict = Verdict("failed", 0.999, 0.03, [Deciding("action chunk", 0.9, 0.0212345678, False)])
    monkeypatch.setattr(reports, "read_report", lambda folder: SimpleNamespace(verdict=verdict))
    found = gate_verdict(tmp_path, "fp8")
    assert found == {"status": "failed", "max_relative_l2": 0.03, "relative_l2": {"action chunk": 0.02123}}
