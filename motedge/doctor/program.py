"""Asking another program, which may hang, fail, or print what is no text."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


def ask(command: list[str], timeout_s: float) -> str:
    """What a program prints, its own children stopped too when it takes too long.

    Raises:
        OSError: it can't be started, failed, or did not end in time; the message says which.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TimeoutError(f"{Path(command[0]).name} did not answer within {timeout_s:g} s") from error
    text = out.decode("utf-8", errors="replace")
    if process.returncode != 0:
        lines = text.strip().splitlines()
        raise OSError(f"{Path(command[0]).name} failed: {lines[0] if lines else f'exit code {process.returncode}'}")
    return text
