"""Where a checkpoint came from: `motedge.json`, written by `make` and `fetch`, or the hub client's own records."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.errors import CheckpointError
from motedge.files import write_json

RECORD = "motedge.json"
SCHEMA = "motedge.checkpoint/v1"
SYNTHETIC, HUB = "synthetic", "hub"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Provenance:
    """A checkpoint's origin. Fields that do not apply are None."""

    # SYNTHETIC (random weights made here) or HUB
    source: str
    # Hub: repository id and the commit that was fetched
    id: str | None = None
    revision: str | None = None
    # Hub: the branch, tag or commit that was asked for
    requested: str | None = None
    # Synthetic: what `make` was told
    family: str | None = None
    variant: str | None = None
    size: str | None = None
    seed: int | None = None
    # Synthetic: weights are zero-filled holes
    sparse: bool | None = None


def write_provenance(root: Path, provenance: Provenance) -> None:
    """Records the origin beside the checkpoint's own files."""
    fields = {name: value for name, value in vars(provenance).items() if value is not None}
    write_json(root / RECORD, {"schema": SCHEMA, **fields})


def read_provenance(root: Path) -> Provenance | None:
    """The recorded origin; None for a folder that neither motedge nor the hub client wrote.

    Raises:
        CheckpointError: the record is of a newer schema or not readable.
    """
    record = root / RECORD
    if record.exists():
        return _parse(record)
    revision = _hub_revision(root)
    return Provenance(source=HUB, id=_hub_id(root), revision=revision) if revision else None


def _parse(record: Path) -> Provenance:
    try:
        raw: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        schema = raw.pop("schema")
        known = Provenance.__dataclass_fields__
        provenance = Provenance(**{name: value for name, value in raw.items() if name in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{record} can't be read", got=f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{record} is of another schema", expected=SCHEMA, got=schema, fix="use a newer version of motedge"
        )
    return provenance


def _hub_revision(root: Path) -> str | None:
    """The commit by the hub client's layout: a cache snapshot's folder name, or the metadata beside a local copy."""
    if root.parent.name == "snapshots" and _COMMIT.fullmatch(root.name):
        return root.name
    metadata = root / ".cache" / "huggingface" / "download" / "transformer" / "config.json.metadata"
    if metadata.exists():
        first = metadata.read_text(encoding="utf-8").partition("\n")[0].strip()
        if _COMMIT.fullmatch(first):
            return first
    return None


def _hub_id(root: Path) -> str | None:
    """The repository by the cache's folder name, models--owner--name."""
    parts = root.parent.parent.name.split("--")
    return "/".join(parts[1:]) if parts[0] == "models" and len(parts) == 3 else None
