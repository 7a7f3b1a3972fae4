from __future__ import annotations

import json
from pathlib import Path

import pytest

from motedge.errors import UsageError
from motedge.quant.sensitivity.ledger import IDENTITY, LEDGER, Ledger

RECORD = {"site gen_step layers.0.x fp8": {"vision": 0.25, "action": 1e-17}}


def test_records_come_back_to_the_last_bit(tmp_path: Path) -> None:
    Ledger(tmp_path, {"origin": "a"}).add(RECORD)
    Ledger(tmp_path, {"origin": "a"}).add({"other": {"action": 0.1 + 0.2}})
    assert Ledger(tmp_path, {"origin": "a"}).records == {**RECORD, "other": {"action": 0.1 + 0.2}}


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    Ledger(tmp_path, {"origin": "a"}).add(RECORD)
    with open(tmp_path / LEDGER, "a") as stream:
        stream.write('{"key": "abc", "id": "si')
    ledger = Ledger(tmp_path, {"origin": "a"})
    assert ledger.records == RECORD
    ledger.add({"next": {"action": 1.0}})
    assert set(Ledger(tmp_path, {"origin": "a"}).records) == {*RECORD, "next"}


def test_records_of_another_key_are_not_taken(tmp_path: Path) -> None:
    Ledger(tmp_path, {"origin": "a"}).add(RECORD)
    lines = (tmp_path / LEDGER).read_text().splitlines()
    (tmp_path / LEDGER).write_text(json.dumps({**json.loads(lines[0]), "key": "f" * 64}) + "\n")
    assert Ledger(tmp_path, {"origin": "a"}).records == {}


def test_another_search_in_the_folder_is_refused_and_named(tmp_path: Path) -> None:
    Ledger(tmp_path, {"origin": "a", "forwards": 8}).add(RECORD)
    with pytest.raises(UsageError, match="another search") as caught:
        Ledger(tmp_path, {"origin": "b", "forwards": 8})
    assert "origin a" in caught.value.expected and "origin b" in caught.value.got
    assert "forwards" not in str(caught.value)


def test_a_search_that_measured_nothing_makes_way_for_another(tmp_path: Path) -> None:
    assert Ledger(tmp_path, {"origin": "a"}).begun
    assert not Ledger(tmp_path, {"origin": "a"}).begun
    assert Ledger(tmp_path, {"origin": "b"}).begun
    Ledger(tmp_path, {"origin": "b"}).add(RECORD)
    with pytest.raises(UsageError, match="another search"):
        Ledger(tmp_path, {"origin": "a"})


@pytest.mark.parametrize("line", ["not json", '{"key": 1}', "[]"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    Ledger(tmp_path, {"origin": "a"}).add(RECORD)
    with open(tmp_path / LEDGER, "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(UsageError, match="damaged") as caught:
        Ledger(tmp_path, {"origin": "a"})
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "motedge.bundle/v1", "identity": {}}'])
def test_a_file_that_is_not_a_searchs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / IDENTITY).write_text(content)
    with pytest.raises(UsageError, match="is not a search's"):
        Ledger(tmp_path, {"origin": "a"})
