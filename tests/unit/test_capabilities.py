"""The capability matrix: its page is that of the record, whose tests exist; what markers may say; how records merge."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from capabilities import MODES, Claim, Recorder, claims_of, merge

ROOT = Path(__file__).resolve().parents[2]
CLAIM = {"mode": "policy", "family": "edge", "backend": "onnxruntime", "proof": "parity"}


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("capability_matrix", ROOT / "scripts/capability_matrix.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _item(marks: list[dict[str, Any]], params: dict[str, Any] | None = None, args: tuple[Any, ...] = ()) -> Any:
    markers = [SimpleNamespace(args=args, kwargs=kwargs) for kwargs in marks]
    call = {} if params is None else {"callspec": SimpleNamespace(params=params)}
    return SimpleNamespace(nodeid="tests/a.py::test_a[x]", iter_markers=lambda _: iter(markers), **call)


def test_the_page_is_current(matrix: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--check"]) == 0, capsys.readouterr().out


@functools.cache
def _functions(file: str) -> frozenset[str]:
    """The names of a file's tests."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_entry_names_a_test_that_exists(matrix: ModuleType) -> None:
    entries = matrix.read_record(matrix.RECORD)
    assert entries
    for entry in entries:
        file, _, name = entry["test"].partition("::")
        assert (ROOT / file).is_file(), entry
        assert name in _functions(file), entry
        assert "pytest.mark.capability" in (ROOT / file).read_text(encoding="utf-8"), entry


def test_every_result_exists(matrix: ModuleType) -> None:
    for entry in matrix.read_results(matrix.RESULTS):
        assert entry["mode"] in MODES and entry["device"].startswith("NVIDIA") and entry["commit"], entry


def test_parameters_are_put_in() -> None:
    marked = {**CLAIM, "mode": "{mode}", "family": "{family}"}
    (claim,) = claims_of(_item([marked], {"mode": "text2video", "family": "nano"}))
    assert claim == Claim("text2video", "nano", "onnxruntime", "parity")
    assert claims_of(_item([])) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "fly"}, "unknown mode 'fly'"),
        ({"family": "large"}, "unknown family"),
        ({"backend": "cpu"}, "unknown backend"),
        ({"proof": "hope"}, "unknown proof"),
        ({"note": "x"}, "no others"),
    ],
)
def test_what_a_marker_may_not_say(changes: dict[str, str], message: str) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        claims_of(_item([{**CLAIM, **changes}]))


def test_a_test_that_ran_again_replaces_itself_alone() -> None:
    claim = Claim(**CLAIM)
    old = [
        {**CLAIM, "test": "a", "passed": 9, "failed": 0, "skipped": 0, "commit": "1"},
        {**CLAIM, "family": "nano", "test": "a", "passed": 9, "failed": 0, "skipped": 0, "commit": "1"},
        {**CLAIM, "test": "b", "passed": 5, "failed": 0, "skipped": 0, "commit": "1"},
    ]
    entries = merge(old, {("a", claim): Counter(passed=2, skipped=1)}, {"commit": "2", "date": "2026-11-27"})
    assert [(e["test"], e["family"], e["passed"], e["skipped"], e["commit"]) for e in entries] == [
        ("a", "edge", 2, 1, "2"),
        ("b", "edge", 5, 0, "1"),
    ]


def test_what_is_recorded(tmp_path: Path, matrix: ModuleType) -> None:
    recorder = Recorder(tmp_path / "record.json")
    item = _item([CLAIM])
    recorder.pytest_collection_finish(SimpleNamespace(items=[item]))  # type: ignore[arg-type]
    for when, outcome in (("setup", "passed"), ("call", "passed"), ("teardown", "passed"), ("setup", "skipped")):
        report: Any = SimpleNamespace(nodeid=item.nodeid, when=when, outcome=outcome)
        recorder.pytest_runtest_logreport(report)
    recorder.pytest_sessionfinish()
    (entry,) = matrix.read_record(tmp_path / "record.json")
    assert (entry["test"], entry["passed"], entry["failed"], entry["skipped"]) == ("tests/a.py::test_a", 1, 0, 1)


def test_what_failed_or_was_skipped_shows_nothing(matrix: ModuleType) -> None:
    counts = {"commit": "abc", "passed": 3, "skipped": 0}
    entries = [
        {**CLAIM, "test": "tests/a.py::test_a", "failed": 1, **counts},
        {**CLAIM, "family": "nano", "test": "tests/b.py::test_b", "failed": 0, **counts, "passed": 0, "skipped": 2},
        {**CLAIM, "family": "super", "test": "tests/c.py::test_c", "failed": 0, **counts},
    ]
    page = matrix.make_page(entries, [])
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {MODES['policy']}"))
    assert "parity: Super" in line and "Edge" not in line and "Nano" not in line
    assert "tests/a.py::test_a (policy, edge): 1 failed" in page
