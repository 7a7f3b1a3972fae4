"""history.json of a store: which bundles were active, in turn. Without it only the way back is lost."""

from __future__ import annotations

import json
import logging
from pathlib import Path

HISTORY, SCHEMA = "history.json", "motedge.install/v1"
_log = logging.getLogger(__name__)


def read_history(root: Path) -> list[str]:
    """Ids in the order in which they became active, oldest first; empty where nothing is known."""
    path = root / HISTORY
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        activated = raw["activated"]
        if raw["schema"] == SCHEMA and all(isinstance(name, str) for name in activated):
            return list(activated)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _log.warning("%s is damaged: which bundle was active before is not known", path)
    return []
