"""The commands that pages tell to type, read from top to bottom: what they need was installed and made before."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from motedge.cli.main import build_parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("benchmarks/README.md", "docker/README.md", "README.md")
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*/README.md"), *(ROOT / p for p in OTHERS)])
PAGES = ("README.md", "docs/robots.md", "examples/train_small/README.md", "examples/small_road/README.md")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Of every command, where its result goes
WRITTEN = re.compile(r"(?:--(?:out|film|page|plot|record|recorder|rerun|work)|checkpoint make) ([^-$/~\s][^$\s]*)")
# Part of a command -> the extras without one of which it fails
NEEDS = {
    "motedge export": {"export"},
    "motedge serve": {"serve"},
    "motedge quantize": {"quant"},
    "--plot": {"plot"},
    "--rerun": {"rerun"},
    "--film": {"images"},
    "--observation": {"images"},
    "remote_arm.py": {"client"},
    "examples.mujoco_arm": {"client", "sim", "images"},
    "examples.drive_remote": {"client", "drive"},
    "examples.lerobot_replay": {"client", "quant"},
    "train_small.data.generate": {"drive"},
    "train_small.data.to_lerobot": {"drive", "quant"},
    "train_small.draw_road": {"drive", "images"},
}
# Part of a command -> what a command above it has to have made
MADE = {
    "--observation scene": r"draw_scene\.py|draw_road --out scene",
    "scene/image.png": r"draw_road --out scene",
    "serve bundle --chat": r"export \S+ --out bundle --extras reasoner",
    "reason bundle": r"export \S+ --out bundle --extras reasoner",
    "--engine tensorrt": r"motedge build bundle",
}


def commands(page: str) -> Iterator[str]:
    """Lines of the blocks of shell commands, without their comments."""
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split(" # ")[0].strip()
            if command.startswith(("pip ", "motedge ", "python ", "bash ")):
                yield command


@pytest.mark.parametrize("page", PAGES)
def test_what_a_command_needs_is_installed_above_it(page: str) -> None:
    installed: set[str] = set()
    seen = 0
    for command in commands(page):
        if command.startswith("pip "):
            # In quotes: some shells take brackets for a pattern. From the checkout: no index has the package yet
            found = re.fullmatch(r'pip install "\.\[([a-z,]+)\]"', command)
            assert found, command
            assert set(found[1].split(",")) <= set(EXTRAS), command
            installed |= set(found[1].split(","))
        for part, extras in NEEDS.items():
            if part in command:
                seen += 1
                assert extras <= installed, f"{command}: {sorted(extras - installed)} of motedge is not installed"
    assert seen > 2


@pytest.mark.parametrize("page", ("README.md", "examples/small_road/README.md"))
def test_what_a_command_reads_is_made_above_it(page: str) -> None:
    above = ""
    for command in commands(page):
        for part, made in MADE.items():
            assert part not in command or re.search(made, above), f"{command}: nothing made it"
        # That page brings no pictures, and asks for none of the reader's
        if page.endswith("small_road/README.md") and "--image" in command:
            assert "--image scene/image.png" in command
        above += command + "\n"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_motedge_takes_the_options_that_are_shown(page: Path) -> None:
    parser = build_parser()
    for command in commands(page.relative_to(ROOT).as_posix()):
        if command.startswith("motedge "):
            try:
                parser.parse_args(shlex.split(command)[1:])
            except SystemExit as error:
                raise AssertionError(f"{command}: motedge refuses it, its message is above") from error


def test_git_ignores_what_commands_write() -> None:
    lines = [line for page in DOCUMENTS for line in commands(page.relative_to(ROOT).as_posix())]
    found = {name for line in lines for name in WRITTEN.findall(line)}
    # Results are part of the repository; names in capitals stand for the reader's own
    names = {name for name in found if not name.startswith("benchmarks/results/") and not name.isupper()}
    assert {"bundle", "scene", "actions.png", "work"} <= names
    asked = "\n".join(f"{name}\n{name}/" for name in sorted(names))
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        pytest.skip("not a git work tree: what it ignores is not known")
    assert names - {line.rstrip("/") for line in done.stdout.splitlines()} == set()
