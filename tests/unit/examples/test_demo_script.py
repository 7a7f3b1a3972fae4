"""scripts/demo.sh with made commands: what it ends with, and that no process stays whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from processes import start

ROOT = Path(__file__).resolve().parents[3]
# Notes its process and how it ended; `exec`s nothing, so that a signal reaches the trap
MOTEDGE = """#!/usr/bin/env bash
echo "motedge $*" >> calls
[ "$1" = serve ] || exit 0
[ "${SERVER:-}" != dies ] || { echo "can't" >&2; exit 2; }
echo $$ > server.pid
trap 'echo gracefully > server.ended; exit 0' TERM
echo "[I] loading; listening on ws://127.0.0.1:${SERVER_PORT:-1}" >&2
while :; do sleep 0.05; done
"""
PYTHON = """#!/usr/bin/env bash
[ "$1" = -m ] || exit 0
echo "python $*" >> calls
echo $$ > driver.pid
trap 'echo told to > driver.ended; exit 143' TERM
for _ in $(seq "${DRIVE_STEPS:-1}"); do sleep 0.05; done
exit "${DRIVE_CODE:-0}"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "demo.sh", tmp_path / "scripts" / "demo.sh")
    (tmp_path / "scripts" / "setup.sh").write_text("true\n")
    for name, text in (("motedge", MOTEDGE), ("python", PYTHON)):
        made = tmp_path / ".venv" / "bin" / name
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text)
        made.chmod(0o755)
    return tmp_path


def begin(root: Path, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEMO_")}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return start(["bash", str(root / "scripts" / "demo.sh")], env={**kept, **environment}, cwd=root, **streams)


def alive(file: Path) -> bool:
    try:
        os.kill(int(file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def wait_for(file: Path) -> None:
    until_s = time.monotonic() + 10
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < until_s, f"no {file.name}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("drive", "code", "message"), [("0", 0, "The drive"), ("1", 1, "did not do"), ("3", 3, "failed")]
)
def test_what_it_ends_with(root: Path, drive: str, code: int, message: str) -> None:
    demo = begin(root, DRIVE_CODE=drive)
    out, log = demo.communicate(timeout=30)
    assert demo.returncode == code and message in out + log
    assert (root / "server.ended").read_text() == "gracefully\n" and not alive(root / "server.pid")
    calls = (root / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["export", "verify", "serve", "-m"]
    assert "--server ws://127.0.0.1:1 --instruction left --instruction right" in calls[3]


@pytest.mark.parametrize("folder", ["made", "{root}/deep/made"])
def test_where_the_film_is_said_to_be(root: Path, folder: str) -> None:
    demo = begin(root, DEMO_OUT=folder.format(root=root))
    out, log = demo.communicate(timeout=30)
    assert demo.returncode == 0, log
    film = (root / folder.format(root=root)).resolve() / "drive.webp"
    assert f": {film} (a film" in out and f"--film {film}" in (root / "calls").read_text()


class Healthy(BaseHTTPRequestHandler):
    """/healthz of a server that is ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *what: object) -> None:
        """Says nothing."""


def test_the_server_is_asked_past_a_proxy(root: Path) -> None:
    """A user behind one: it is elsewhere, or as here not there at all."""
    python = root / ".venv" / "bin" / "python"
    python.write_text(PYTHON.replace("\n", f'\n[ "$1" != - ] || exec {sys.executable} "$@"\n', 1))
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
        demo = begin(root, SERVER_PORT=str(server.server_port), **proxy)
        try:
            wait_for(root / "driver.pid")
        finally:
            demo.terminate()
            demo.communicate(timeout=30)
            server.shutdown()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_process(root: Path, number: signal.Signals, code: int) -> None:
    demo = begin(root, DRIVE_STEPS="1000")
    wait_for(root / "driver.pid")
    demo.send_signal(number)
    demo.communicate(timeout=30)
    assert demo.returncode == code
    assert (root / "server.ended").read_text() == "gracefully\n"
    assert not alive(root / "server.pid") and not alive(root / "driver.pid")


def test_a_server_that_does_not_start(root: Path) -> None:
    demo = begin(root, SERVER="dies")
    _, log = demo.communicate(timeout=30)
    assert demo.returncode == 3 and "the server did not start" in log and "can't" in log
    assert not (root / "driver.pid").exists()


def test_without_a_simulator(root: Path) -> None:
    python = root / ".venv" / "bin" / "python"
    python.write_text("#!/usr/bin/env bash\nexit 1\n")
    demo = begin(root)
    _, log = demo.communicate(timeout=30)
    assert demo.returncode == 3 and "there is no simulator" in log and not (root / "calls").exists()
