"""What the robot was told in a LeRobot data set: meta/tasks.parquet (v3) or meta/tasks.jsonl (v2.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from motedge.errors import DataError
from motedge.quant.datasets.parquet_tables import column_names, read_columns

# DROID joins up to three annotations of one episode with it; training takes one of them
# (cosmos-framework, droid_lerobot_dataset.py, __getitem__)
_BETWEEN = "|"


def read_tasks(root: Path) -> dict[int, str]:
    """task_index -> text as it is stored; empty where the data set has no tasks.

    Raises:
        DataError: a damaged file, or tasks without their numbers.
    """
    lines, table = root / "meta" / "tasks.jsonl", root / "meta" / "tasks.parquet"
    if lines.is_file():
        rows = _read_lines(lines)
    elif table.is_file():
        columns = read_columns(table, column_names(table))
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    else:
        return {}
    try:
        # The text's column is named differently by different writers: task, or pandas' index
        return {int(row["task_index"]): next((v for v in row.values() if isinstance(v, str)), "") for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the tasks of {root.name} have no task_index", got=repr(error)) from error


def task_text(tasks: Mapping[int, str], number: Optional[int], where: str) -> str:
    """The text of a row's task; of several annotations the first.

    Args:
        tasks: of `read_tasks`.
        number: the row's task_index; None where the table has no such column.
        where: the row, in words.

    Raises:
        DataError: no text, or several tasks and no number.
    """
    if number is None and len(tasks) > 1:
        raise DataError(
            f"{where} does not say which task it belongs to",
            expected="a column task_index",
            got=f"{len(tasks)} tasks",
            fix="give --instruction TEXT",
        )
    text = next(iter(tasks.values()), "") if number is None else tasks.get(number, "")
    said = [part.strip() for part in text.split(_BETWEEN) if part.strip()]
    if not said:
        raise DataError(f"{where} has no task text", got=repr(text), fix="give --instruction TEXT")
    return said[0]


def _read_lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path} is not JSON, line by line", got=str(error)) from error
