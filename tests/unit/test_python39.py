"""The device's part runs on Python 3.9: by vermin over its sources, and on a real 3.9 where one is installed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The device's part, and the command line around it, which must be able to say why export needs a newer Python
AREAS = (
    *("motedge/__init__.py", "motedge/__main__.py", "motedge/errors.py", "motedge/files.py"),
    *("motedge/child_process.py", "motedge/memory.py", "motedge/units.py"),
    *("motedge/bundle", "motedge/client", "motedge/doctor", "motedge/media", "motedge/cli"),
    *("motedge/bench", "motedge/profile", "quant/page", "runtime", "targets"),
)
# Modules that need the standard library alone
PLAIN_MODULES = (
    *("motedge.child_process", "motedge.errors", "motedge.files", "motedge.memory", "motedge.units"),
    *("motedge.bundle.summary", "motedge.cli.main"),
)


def _sources() -> list[Path]:
    found: list[Path] = []
    for area in AREAS:
        path = ROOT / area
        found += [path] if path.is_file() else path.rglob("*.py")
    return sorted(found)


def _python39() -> Optional[str]:
    """A Python 3.9: named by MOTEDGE_PYTHON39, on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    candidates = [os.environ.get("MOTEDGE_PYTHON39"), shutil.which("python3.9")]
    candidates += [str(path) for path in sorted(pyenv.glob("3.9.*/bin/python"))]
    for candidate in filter(None, candidates):
        code = "import sys; print(sys.version_info[:2] == (3, 9))"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == "True":
            return candidate
    return None


PYTHON39 = _python39()
needs_python39 = pytest.mark.skipif(PYTHON39 is None, reason="no Python 3.9 here; name one with MOTEDGE_PYTHON39")


def test_syntax() -> None:
    for path in _sources():
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))


def _vermin(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Runs vermin, which has no __main__; `X | Y` of types is looked for only when asked."""
    command = [sys.executable, "-c", "from vermin import main; main()", "--target=3.9-", "--feature", "union-types"]
    options = ["--violations", "--no-tips", "--no-parse-comments"]
    return subprocess.run([*command, *options, *map(str, paths)], capture_output=True, text=True, check=False)


def test_no_newer_library_or_evaluated_syntax() -> None:
    """What a parser accepts may still fail when run: `X | Y` outside annotations, zip(strict=), new modules."""
    done = _vermin(*_sources())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("newer", ["Kind = int | None", "for _ in zip([1], [2], strict=True): pass"])
def test_vermin_finds_what_it_is_there_for(newer: str, tmp_path: Path) -> None:
    """The check above must not pass because the tool looks away."""
    (tmp_path / "newer.py").write_text(newer + "\n")
    done = _vermin(tmp_path / "newer.py")
    assert done.returncode != 0
    assert "Minimum required versions: 3.10" in done.stdout


def test_annotations_are_never_evaluated() -> None:
    """With the future import an annotation may say `X | None`; without it 3.9 fails at the definition."""
    problems = []
    for path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        annotated = any(isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation for node in ast.walk(tree))
        future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        if annotated and not future:
            problems.append(f"{path.relative_to(ROOT)}: from __future__ import annotations")
    assert not problems, "\n".join(problems)


@needs_python39
def test_python39_imports_what_needs_no_package(tmp_path: Path) -> None:
    # -S, -E: neither site-packages nor PYTHON* of this environment; only the tree itself
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(PLAIN_MODULES)}"
    command = [str(PYTHON39), "-S", "-E", "-B", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_python39
def test_python39_runs_the_installed_package(tmp_path: Path) -> None:
    """A fresh environment with the runtime's requirements alone: imports every module of the runtime, runs doctor."""
    tree = _shadow(tmp_path / "tree")
    subprocess.run([str(PYTHON39), "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    install = [str(python), "-m", "pip", "install", "-qq", "--no-build-isolation"]
    subprocess.run([*install, "--upgrade", "pip", "setuptools>=77", "wheel"], check=True)
    subprocess.run([*install, "--editable", str(tree)], check=True)
    modules = [
        "motedge.runtime." + path.relative_to(tree / "runtime").with_suffix("").as_posix().replace("/", ".")
        for path in (tree / "runtime").rglob("*.py")
        if path.stem != "__init__"
    ]
    subprocess.run(
        [str(python), "-c", f"import motedge.client, motedge.runtime, {', '.join(modules)}"], cwd=tmp_path, check=True
    )
    done = subprocess.run([str(python), "-m", "motedge", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run-cpu  yes" in done.stdout
    assert "export   no" in done.stdout


def _shadow(target: Path) -> Path:
    """The package's sources beside the work tree, so that installing writes nothing into it."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "motedge", "export", "quant", "runtime", "targets"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target
