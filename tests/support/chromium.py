"""Pages opened in headless Chromium: what its console says, and what they look like."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Optional

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: Debian's package is chromium")
# Chromium's sandbox and shared memory don't work in most containers
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--enable-logging=stderr"),
)
_CONSOLE = re.compile(r"CONSOLE[:(].*")
_PATIENCE_S = 120


def open_page(page: Path, picture: Path, *, dark: bool = False, size: tuple[int, int] = (1240, 3600)) -> list[str]:
    """Opens a file in a profile of its own, writes a picture (PNG), and returns what the console said."""
    command = [str(PROGRAM), *_FLAGS, f"--user-data-dir={picture.parent / (picture.stem + '-browser')}"]
    command += [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}"]
    # 0: dark, 1: light (blink's mojom::PreferredColorScheme)
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", page.resolve().as_uri()]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    said: Optional[str] = None
    try:
        _, said = process.communicate(timeout=_PATIENCE_S)
    finally:
        if said is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        shutil.rmtree(picture.parent / (picture.stem + "-browser"), ignore_errors=True)
    assert picture.is_file(), said
    return _CONSOLE.findall(said or "")
