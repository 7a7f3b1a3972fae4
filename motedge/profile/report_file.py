"""Reading the JSON of a report that a verb wrote: of a profile, or of a bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motedge.errors import DataError
from motedge.files import PathLike


def read_report(path: PathLike, verb: str, schema: str) -> tuple[Path, dict[str, Any]]:
    """VERB.json, or the one in a folder: which file that is, and what it holds.

    Raises:
        DataError: it does not exist, is no such report, or of a newer schema.
    """
    file = Path(path)
    file = file / f"{verb}.json" if file.is_dir() else file
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {verb} {file}", fix=f"motedge {verb} BUNDLE --out DIR writes one") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} can't be read as a {verb}", got=str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != schema:
        got = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise DataError(f"{file} is no {verb}", expected=schema, got=got, fix=f"give {verb}.json, or its folder")
    return file, document
