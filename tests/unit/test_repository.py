"""Rules of the repository that no linter knows: sizes, who may import whom, what a wheel holds."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX, LINES_95_PERCENT, LINES_MEDIAN = 500, 400, 180
FUNCTION_LINES_MAX = 60
TRACKED_BYTES_MAX = 5_000_000
# A module may import from its own rank and below. What is not listed here fails, so that a new area finds its place.
RANKS = {
    "errors": 0,
    "units": 0,
    "files": 0,
    "memory": 0,
    "child_process": 0,
    "media": 1,
    "bundle": 1,
    "doctor": 1,
    "targets.catalog": 1,
    "checkpoint": 1,
    "client": 1,
    "runtime": 2,
    "export": 3,
    "quant": 4,
    "targets": 5,
    "profile": 6,
    "serve": 6,
    "bench": 6,
    "cli": 7,
    "__main__": 8,
}
# Parts of an area with a rank of their own: recipes must know devices, and planning must know recipes
PARTS = ("targets.catalog",)
# Areas of one rank that must not know each other, and steps down that are not allowed
FORBIDDEN = {("bundle", "checkpoint"), ("checkpoint", "bundle"), ("runtime", "checkpoint"), ("bundle", "doctor")}
# The client stands alone: a robot may have it without anything else of the package
FORBIDDEN |= {("client", area) for area in ("bundle", "checkpoint", "doctor", "targets.catalog")}
# What the device has: runtime and everything below it imports nothing else, and nothing heavy at all at the top
DEVICE_AREAS = ("errors", "units", "files", "memory", "child_process", "bundle", "targets.catalog", "client", "runtime")
HEAVY = ("torch", "onnx", "onnxscript", "safetensors", "diffusers", "transformers", "huggingface_hub")
# Written in pieces, so that this file does not match itself
MACHINE = re.compile("|".join(["/wo" + "rk/", "/tmp/" + "env", r"\bsk" + r"-[A-Za-z0-9]{16}", "/opt/" + "pypi"]))


def _tracked() -> list[Path]:
    """Files that git tracks or would track: new ones count before they are committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git work tree: which files are tracked is not known")
    names = filter(None, done.stdout.decode().split("\0"))
    return [ROOT / name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def _sources() -> list[Path]:
    """Python files of the package, each once: through the links of motedge/, not beside them."""
    found = (path for path in _walk(ROOT / "motedge") if path.suffix == ".py")
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            yield from _walk(path)
        elif path.is_file():
            yield path


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _area(path: Path) -> str:
    return _area_of(path.relative_to(ROOT / "motedge").with_suffix("").parts)


def _area_of(parts: Sequence[str]) -> str:
    """The area of a module, given by its names below motedge."""
    part = ".".join(parts[:2])
    return part if part in PARTS else parts[0]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, wherever in the file; `from motedge import x` as motedge.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: import by the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_file_sizes() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in _tracked()
        if path.suffix in (".py", ".sh", ".cu", ".h", ".cpp", ".cmake")
    }
    counts = sorted(lines.values())
    percentile = counts[int(len(counts) * 0.95) - 1]
    _report([f"{name}: {count} lines, at most {LINES_MAX}" for name, count in lines.items() if count > LINES_MAX])
    shape = f"{len(counts)} files: median {statistics.median(counts)}, 95 % {percentile}, longest {counts[-1]} lines"
    assert statistics.median(counts) <= LINES_MEDIAN, shape
    assert percentile < LINES_95_PERCENT, shape


def test_function_lengths() -> None:
    problems = []
    for path in _tracked():
        if path.suffix != ".py":
            continue
        for node in ast.walk(_tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    problems.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    _report(problems)


def test_every_module_says_what_it_is() -> None:
    _report([f"{path.relative_to(ROOT)} has no docstring" for path in _sources() if not ast.get_docstring(_tree(path))])


def test_names_say_something() -> None:
    vague = {"util", "utils", "common", "misc", "helpers", "helper"}
    _report([str(path.relative_to(ROOT)) for path in _sources() if vague & {*path.parts, path.stem}])


def test_import_direction() -> None:
    problems = []
    for path in _sources():
        area = _area(path)
        if area == "__init__":
            continue
        assert area in RANKS, f"{path.relative_to(ROOT)}: give the area {area!r} its rank here and in CONTRIBUTING.md"
        for name in _imports(_tree(path)):
            parts = name.split(".")
            if parts[0] != "motedge" or len(parts) < 2 or _area_of(parts[1:]) not in RANKS:
                continue
            used = _area_of(parts[1:])
            if RANKS[used] > RANKS[area] or (area, used) in FORBIDDEN:
                problems.append(f"{path.relative_to(ROOT)} imports {name}")
    _report(problems)


def test_the_device_needs_no_export_package() -> None:
    problems = []
    for path in _sources():
        if _area(path) in DEVICE_AREAS:
            used = {name.split(".")[0] for name in _imports(_tree(path))}
            problems += [f"{path.relative_to(ROOT)} imports {name}" for name in HEAVY if name in used]
    _report(problems)


@pytest.mark.parametrize("module", ["motedge", "motedge.bundle", "motedge.runtime", "motedge.runtime.policy"])
def test_import_loads_no_torch(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_folders_are_not_importable_by_their_bare_names(tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('runtime', 'export', 'quant', 'targets') if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_machine_paths_or_keys() -> None:
    problems = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if found := MACHINE.search(line):
                problems.append(f"{path.relative_to(ROOT)}:{number} holds {found.group()!r}")
    _report(problems)


def test_no_large_files() -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in _tracked()}
    _report([f"{name}: {size} bytes" for name, size in sizes.items() if size > TRACKED_BYTES_MAX])


def test_an_editable_install_is_found_beside_the_clone(tmp_path: Path) -> None:
    """A clone is called motedge too: from its parent folder it must not hide the package as an empty namespace."""
    said = _build("editable", _copy_of_tree(tmp_path / "motedge"), tmp_path)
    # setuptools' warning of just this, which scripts/setup.sh would show at each of its installs
    assert "may take precedence" not in said
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = """if True:
        import site, sys
        from importlib.util import find_spec
        site.addsitedir(sys.argv[1])
        import motedge.runtime.actions
        print(motedge.load_policy.__name__, motedge.__file__)
        print([name for name in ("runtime", "export", "quant", "targets") if find_spec(name)])
    """
    # -S, -E: nothing of this environment, where motedge is installed in its own way
    command = [sys.executable, "-S", "-E", "-B", "-c", code, str(tmp_path / "site")]
    for folder in (tmp_path, tmp_path / "motedge", tmp_path / "site"):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"load_policy {tmp_path / 'motedge'}")
        # In the clone itself those folders lie in the working directory
        assert folder.name == "motedge" or done.stdout.endswith("\n[]\n")


@pytest.mark.slow
def test_wheel_and_sdist_hold_plain_files(tmp_path: Path) -> None:
    """The links src/motedge and motedge/export, quant, runtime and targets become plain files in what is published."""
    names = {path.relative_to(ROOT).as_posix() for path in _tracked()}
    # Data files too: what package-data forgets is missed only on the device
    expected = {name if name.startswith("motedge/") else f"motedge/{name}" for name in names if _packaged(name)}
    copy = _copy_of_tree(tmp_path / "tree")
    for kind in ("wheel", "sdist"):
        _build(kind, copy, tmp_path)
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    assert expected <= set(wheel.namelist())
    links = [item.filename for item in wheel.infolist() if (item.external_attr >> 16) & 0o170000 == 0o120000]
    assert links == []
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"motedge"}
    assert any(name.endswith("py.typed") for name in wheel.namelist())
    assert any(name.endswith("entry_points.txt") for name in wheel.namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        members = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
        sdist.extractall(tmp_path / "unpacked")
    assert {f"src/{name}" for name in expected} <= {name for name, member in members.items() if member.isfile()}
    _build("wheel", next((tmp_path / "unpacked").iterdir()), tmp_path / "again")
    again = zipfile.ZipFile(next((tmp_path / "again").glob("*.whl")))
    assert {item.filename: item.CRC for item in again.infolist()} == {i.filename: i.CRC for i in wheel.infolist()}


def _build(kind: str, source: Path, folder: Path) -> str:
    """Calls setuptools as pip does: a wheel, sdist or editable wheel, into a folder; returns what it said."""
    build = f"import setuptools.build_meta as b, sys; b.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _packaged(name: str) -> bool:
    return name.startswith(("motedge/", "export/", "quant/", "runtime/", "targets/"))


def _copy_of_tree(target: Path) -> Path:
    """The tracked files and links alone, so that building leaves nothing in the work tree and takes nothing from it."""
    for path in _tracked():
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for link in ("src/motedge", "motedge/export", "motedge/quant", "motedge/runtime", "motedge/targets"):
        (target / link).parent.mkdir(exist_ok=True)
        (target / link).symlink_to((ROOT / link).readlink())
    return target
