"""The order of the work, what failures do to it, and that an interrupted bench ends with the figures of a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bench_scene import CANDIDATES, QUICK, made_cells, made_document, run_made

from motedge.bench.journal import Journal
from motedge.bench.options import BenchOptions
from motedge.bench.run import turn_order
from motedge.bench.state import is_done, states
from motedge.bench.worker import CellError, WorkerGoneError
from motedge.errors import ObservationError, UsageError
from motedge.profile.sensors.sensor import GPU, POWER_W, Channel


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "out", {})


def test_all_take_turns(journal: Journal) -> None:
    log: list[str] = []
    run_made(journal, log)
    cells = [f"{cell.candidate.name} {cell.point.settings.steps}" for cell in made_cells()]
    assert log[:9] == [f"answers {name}" for name in cells]
    for turn in range(4):
        order = [f"{cell.candidate.name} {cell.point.settings.steps}" for cell in turn_order(made_cells(), turn)]
        assert log[9 * (turn + 1) : 9 * (turn + 2)] == [f"times {name}" for name in order]
    assert log[45:] == ["memory unquantized", "memory fp8", "memory int4-awq"]
    found = states(journal.lines, made_cells())
    assert all(sum(len(turn["ms"]) for turn in state.turns.values()) == QUICK.repeat for state in found.values())
    assert is_done(journal.lines)


def test_whoever_watches_is_told_what_is_loaded(journal: Journal) -> None:
    told: list[tuple[str, int, int, str]] = []
    run_made(journal, progress=lambda *words: told.append(words))
    loaded = [words for words in told if words[0] == "loading"]
    assert loaded == [("loading", number, 3, one.name) for number, one in enumerate(CANDIDATES)]
    first = ("actions", 0, 9, "unquantized / shipped")
    assert told[:3] == [first, loaded[0], first]


def test_turns_are_mixed_and_every_second_one_is_the_one_before_backwards() -> None:
    cells = made_cells()
    orders = [turn_order(cells, turn) for turn in range(20)]
    for even, odd in zip(orders[::2], orders[1::2]):
        assert odd == even[::-1] and sorted(even, key=cells.index) == cells
    assert len({tuple(cell.id for cell in order) for order in orders}) == 20
    assert orders == [turn_order(cells, turn) for turn in range(20)]


def test_one_at_a_time(journal: Journal) -> None:
    log: list[str] = []
    run_made(journal, log, options=BenchOptions(repeat=2, rounds=2, one_at_a_time=True))
    names = [line.split()[1] for line in log]
    assert names == sorted(names, key=["unquantized", "fp8", "int4-awq"].index)


def test_a_bench_that_is_done_does_nothing(journal: Journal) -> None:
    run_made(journal)
    before, log = list(journal.lines), []  # type: ignore[var-annotated]
    run_made(journal, log, lambda *_: pytest.fail("opened"))
    run_made(journal, log, lambda *_: pytest.fail("opened"), retry=True)
    assert log == [] and journal.lines == before


@pytest.mark.parametrize("after", [0, 3, 9, 14, 30, 44, 46])
def test_interrupted_and_gone_on_with(journal: Journal, after: int) -> None:
    log: list[str] = []

    def interrupt(name: str, what: str, steps: int) -> None:
        if what != "open" and len(log) > after:
            raise KeyboardInterrupt

    if after < 45:
        with pytest.raises(KeyboardInterrupt):
            run_made(journal, log, interrupt)
        assert not is_done(journal.lines)
    else:
        run_made(journal, log)
    measured = [line for line in journal.lines if line["kind"] in ("answers", "times")]
    assert len(measured) == min(after, 45)
    run_made(journal)
    assert is_done(journal.lines)
    # What was there is there as it was, and nothing was measured twice
    kept = [line for line in journal.lines if line["kind"] in ("answers", "times")]
    assert kept[: len(measured)] == measured and len(kept) == 45
    assert len({(line["cell"], line.get("turn")) for line in kept}) == 45


def test_finished_cells_keep_their_figures(tmp_path: Path) -> None:
    """Killed after three rounds: what is told of those rounds does not change when the fourth comes."""
    journal, log = Journal(tmp_path, {}), []  # type: ignore[var-annotated]

    def interrupt(name: str, what: str, steps: int) -> None:
        if len(log) > 9 * 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_made(journal, log, interrupt)
    partial = made_document(tmp_path, journal.lines)
    run_made(journal)
    whole = made_document(tmp_path, journal.lines)
    assert not partial["complete"] and "9 of 9 cells are not measured whole" in partial["stopped"]
    assert whole["complete"] and whole["stopped"] is None
    for before, after in zip(partial["cells"], whole["cells"]):
        assert before["status"] == "partial" and after["status"] == "measured"
        assert after["ms"][:9] == before["ms"] and len(after["ms"]) == 12
        assert after["from_shipped"] == before["from_shipped"]
        assert after["sessions"] == [0, 1]


def _failing(*where: tuple[str, str, int], error: Any = None) -> Any:
    def fail(name: str, what: str, steps: int) -> None:
        if (name, what, steps) in where:
            raise error or CellError("out of memory", got="9 GB", fix="fewer")

    return fail


def test_a_cell_that_fails_is_noted_and_the_rest_goes_on(journal: Journal) -> None:
    log: list[str] = []
    run_made(journal, log, _failing(("fp8", "answers", 2), ("int4-awq", "times", 4)))
    found = states(journal.lines, made_cells())
    failed = {name: state.failed for name, state in found.items() if state.failed}
    assert list(failed) == ["fp8 / 2 steps", "int4-awq / shipped"]
    assert all(words == "out of memory\n  got:      9 GB\n  fix:      fewer" for words in failed.values())
    assert log.count("times fp8 2") == 0 and log.count("times int4-awq 4") == 1 and log.count("times fp8 1") == 4
    assert is_done(journal.lines)
    # It is left alone from then on, until somebody asks for it
    run_made(journal, more := [])  # type: ignore[var-annotated]
    assert more == []
    run_made(journal, more, retry=True)
    assert {line for line in more if line.startswith(("answers", "times"))} == {
        "answers fp8 2",
        "times fp8 2",
        "times int4-awq 4",
        # Beside them, since the machine may be another by now
        "times unquantized 4",
    }
    assert [line["session"] for line in journal.of_kind("beside")] == [1] * 4
    kept = [line for line in journal.of_kind("times") if line["cell"] == "unquantized / shipped"]
    assert [line["session"] for line in kept] == [0] * 4
    assert all(state.failed is None and len(state.turns) == 4 for state in states(journal.lines, made_cells()).values())


def test_a_candidate_that_cannot_be_opened_fails_whole_and_is_tried_once(journal: Journal) -> None:
    opened: list[str] = []

    def fail(name: str, what: str, steps: int) -> None:
        if what == "open":
            opened.append(name)
            if name == "fp8":
                raise CellError("the bundle has no engine of graph 'gen_step' for tensorrt")

    run_made(journal, [], fail)
    assert opened == ["unquantized", "fp8", "int4-awq"]
    found = states(journal.lines, made_cells())
    assert [name for name, state in found.items() if state.failed] == ["fp8 / shipped", "fp8 / 2 steps", "fp8 / 1 step"]


def test_a_process_that_is_gone_is_started_again_for_the_other_cells(journal: Journal) -> None:
    opened: list[str] = []

    def fail(name: str, what: str, steps: int) -> None:
        if what == "open":
            opened.append(name)
        if (name, what, steps) == ("fp8", "times", 2):
            raise WorkerGoneError("the candidate's process has ended", got="signal SIGKILL")

    run_made(journal, [], fail)
    assert opened == ["unquantized", "fp8", "int4-awq", "fp8"]
    found = states(journal.lines, made_cells())
    assert [name for name, state in found.items() if state.failed] == ["fp8 / 2 steps"]


def test_a_reference_that_fails_beside_others_keeps_its_turns(journal: Journal) -> None:
    run_made(journal, [], _failing(("fp8", "times", 2)))
    run_made(journal, [], _failing(("unquantized", "times", 4)), retry=True)
    found = states(journal.lines, made_cells())
    assert all(state.failed is None and len(state.turns) == 4 for state in found.values())
    assert journal.of_kind("beside") == []


def test_an_observation_that_no_recipe_can_take_ends_it(journal: Journal) -> None:
    with pytest.raises(ObservationError, match="too long"):
        run_made(journal, [], _failing(("unquantized", "answers", 4), error=ObservationError("too long")))
    assert not any(line["kind"] == "failed" for line in journal.lines)


class Meter:
    """A GPU that takes 10 W at rest and 30 W at work."""

    name, part = "meter", GPU

    def __init__(self) -> None:
        self.working = False

    def open(self) -> None:
        pass

    def read(self) -> Mapping[Channel, float]:
        return {Channel(self.name, "GPU 0", POWER_W): 30.0 if self.working else 10.0}

    def facts(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass


def test_energy_is_measured_last_and_once(journal: Journal) -> None:
    meter, log = Meter(), []  # type: ignore[var-annotated]

    def work(name: str, what: str, steps: int) -> None:
        meter.working = what == "stretch"

    options = BenchOptions(repeat=3, rounds=3, energy_s=0.1, idle_s=1.2, interval_ms=5.0)
    run_made(journal, log, work, options, [meter])
    assert log[-9:] == [f"stretch {cell.candidate.name} {cell.point.settings.steps}" for cell in made_cells()]
    for state in states(journal.lines, made_cells()).values():
        assert state.energy is not None
        energy = state.energy["energy"]
        assert energy["chunks"] == 5 and energy["counted"] == ["meter GPU 0, by power"]
        # The reading before a stretch may be that of the rest
        assert 20 < energy["power_w"] <= 30 and energy["idle_w"] == 10
        assert energy["per_chunk_j"] == pytest.approx(energy["power_w"] * energy["seconds"] / 5, rel=1e-2)
    run_made(journal, more := [], work, options, [meter])  # type: ignore[var-annotated]
    assert more == []


def test_energy_of_a_later_session_is_measured_with_everything_loaded_and_warm(journal: Journal) -> None:
    meter, log = Meter(), []  # type: ignore[var-annotated]
    options = BenchOptions(repeat=3, rounds=3, energy_s=0.1, idle_s=0.0, interval_ms=5.0)

    def interrupt(name: str, what: str, steps: int) -> None:
        if what == "stretch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_made(journal, log, interrupt, options, [meter])
    again: list[str] = []
    told: list[tuple[str, int, int, str]] = []

    def opened(name: str, what: str, steps: int) -> None:
        if what == "open":
            again.append(name)
        if what == "stretch":
            assert len(again) == 3, "some were not loaded while the machine was at rest"

    more: list[str] = []
    run_made(journal, more, opened, options, [meter], progress=lambda *words: told.append(words))
    assert is_done(journal.lines) and len(more) == 9
    assert [name for phase, *_, name in told if phase == "loading"] == ["unquantized", "fp8", "int4-awq"]
    assert [phase for phase, *_ in told if phase != "loading"] == ["energy"] * 9


def test_memory_of_a_later_session_is_that_after_all_points(journal: Journal) -> None:
    log: list[str] = []

    def interrupt(name: str, what: str, steps: int) -> None:
        # The second turn, and of that the last
        if len(log) == 9 + 4 * 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_made(journal, log, interrupt)
    run_made(journal, more := [])  # type: ignore[var-annotated]
    for name in ("unquantized", "fp8", "int4-awq"):
        before = more[: more.index(f"memory {name}")]
        assert {line for line in before if name in line} >= {f"times {name} {steps}" for steps in (4, 2, 1)}


def test_a_machine_without_meters_has_no_energy(journal: Journal) -> None:
    log: list[str] = []
    run_made(journal, log)
    assert not any(line.startswith("stretch") for line in log)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeat": 0},
        {"rounds": 0},
        {"repeat": 3, "rounds": 4},
        {"warm_up": -1},
        {"seed": 2**31},
        {"repeat": True},
        {"energy_s": float("nan")},
        {"idle_s": -1.0},
        {"interval_ms": 0.0},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchOptions(**wrong)


@pytest.mark.parametrize(("repeat", "rounds"), [(30, 15), (30, 6), (7, 3), (5, 5), (1, 1)])
def test_turns_share_the_ticks(repeat: int, rounds: int) -> None:
    options = BenchOptions(repeat=repeat, rounds=rounds)
    shares = [options.ticks_of(turn) for turn in range(rounds)]
    assert sum(shares) == repeat and min(shares) >= 1 and max(shares) - min(shares) <= 1
