"""Logging of the command line: to stderr, so that stdout holds results alone, one letter a level in front."""

from __future__ import annotations

import logging
import sys

_FORMAT = "[%(letter)s] %(message)s"


class _LetterFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.letter = record.levelname[0]
        return super().format(record)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the type stubs
    """Ours, so that a second call in one process replaces it rather than printing each line twice."""


def configure(*, verbose: bool) -> None:
    """Sends motedge's log to stderr: `[I]`, `[W]`, `[E]`, and with `verbose` `[D]`.

    Other libraries keep their own settings; their warnings still come through the root logger.
    """
    logger = logging.getLogger("motedge")
    for handler in [h for h in logger.handlers if isinstance(h, _StderrHandler)]:
        logger.removeHandler(handler)
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(_LetterFormatter(_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
