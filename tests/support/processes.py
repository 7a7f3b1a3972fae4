"""Processes that heed Ctrl-C even where the tests themselves run in the background, which makes children ignore it."""

from __future__ import annotations

import signal
import subprocess
from typing import Any


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Starts a process with the default reaction to SIGINT; text streams."""
    return subprocess.Popen(
        command,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
