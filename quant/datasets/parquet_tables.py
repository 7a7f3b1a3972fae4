"""Columns of parquet files. Only those that are named are read: tables may hold pictures and texts beside numbers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Optional

from motedge.errors import DataError, MissingPackageError


def column_names(path: Path) -> list[str]:
    """Names of a table's columns; reads its footer alone.

    Raises:
        DataError: not a parquet file, or a damaged one.
        MissingPackageError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    try:
        return list(parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def read_columns(path: Path, wanted: Collection[str], *, episode: Optional[int] = None) -> dict[str, list[Any]]:
    """Column name -> values, of those wanted columns that the table has.

    Args:
        path: the file.
        wanted: names of columns.
        episode: only the rows whose episode_index is this.

    Raises:
        DataError: not a parquet file, or a damaged one.
        MissingPackageError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    names = [name for name in column_names(path) if name in wanted]
    rows = None if episode is None else [("episode_index", "==", episode)]
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path, columns=names, filters=rows).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return columns


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a table that can be read", got=str(error), fix="fetch it again")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="quant", purpose="to read LeRobot data sets") from error
    return pyarrow, parquet
