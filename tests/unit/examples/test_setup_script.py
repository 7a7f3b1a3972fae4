"""scripts/setup.sh with made commands: what it takes for done, and what it tries again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Makes an environment of made commands; what the script asks an interpreter in a file, the real one answers
PYTHON = f"""#!/usr/bin/env bash
[ "$1" != - ] || exec {sys.executable} "$@"
[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p .venv/bin
cp made/* .venv/bin/
"""
PIP = """#!/usr/bin/env bash
echo "pip $*" >> calls
case "$*" in *drive*) [ -z "${OFFLINE:-}" ] || { echo "ERROR: the network is unreachable" >&2; exit 1; } ;; esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts" / "setup.sh")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    made = tmp_path / "made"
    made.mkdir()
    for name, text in (("python", PYTHON), ("pip", PIP), ("motedge", "#!/usr/bin/env bash\n")):
        (made / name).write_text(text)
        (made / name).chmod(0o755)
    return tmp_path


def run(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script, with no more of this machine's own settings than it takes to start it."""
    command = ["bash", str(root / "scripts" / "setup.sh")]
    # CI is one of the things the script heeds: whether these tests run under CI must not reach it
    mine = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("MOTEDGE_")}
    variables = {**mine, "PYTHON": str(root / "made" / "python"), **environment}
    return subprocess.run(command, env=variables, cwd=root, capture_output=True, text=True, timeout=30)


def setup(root: Path, **environment: str) -> str:
    """What it says; it has to end well."""
    ran = run(root, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def calls(root: Path) -> int:
    return len((root / "calls").read_text().splitlines())


def test_once_is_enough(root: Path) -> None:
    assert "[setup] done\n" in setup(root)
    before = calls(root)
    assert "up to date" in setup(root) and calls(root) == before
    # Another requirement, and it is no longer
    (root / "pyproject.toml").write_text("changed\n")
    assert "up to date" not in setup(root) and calls(root) > before


def test_a_simulator_that_was_not_installed_is_tried_again(root: Path) -> None:
    said = setup(root, OFFLINE="1")
    assert "the network is unreachable" in said
    assert "the simulator could not be installed; pip's message is above" in said
    assert "no wheel" not in said and "[setup] done\n" not in said
    before = calls(root)
    again = setup(root)
    assert "up to date" not in again and "[setup] done\n" in again and calls(root) > before
    assert "up to date" in setup(root)


def test_continuous_integration_goes_no_further_without_the_simulator(root: Path) -> None:
    ran = run(root, OFFLINE="1", CI="true")
    assert ran.returncode != 0 and "error: the simulator could not be installed" in ran.stderr
    assert "[setup] done" not in ran.stderr
    assert "[setup] done\n" in setup(root, CI="true")
