"""Lists what a TensorRT release's Python module has, without TensorRT: classes, members, signatures, enum values.

The bindings' wheels are public, the libraries behind them are not needed to know the API: the module links to a dozen
functions of theirs (everything else is virtual), so empty ones of the same names let it be imported and looked at.
tests/data/tensorrt_api/ holds the result; tests make stub modules of it (tests/support/tensorrt_stub.py).

    pip download --no-deps --only-binary=:all: --python-version 311 --platform manylinux_2_28_x86_64 \
        tensorrt-cu13-bindings==10.16.1.11
    python scripts/extract_tensorrt_api.py tensorrt_cu13_bindings-10.16*.whl tests/data/tensorrt_api/10.16.json

TensorRT-RTX in the same way: tensorrt-rtx-cu13-bindings==1.7.1.116 into tests/data/tensorrt_api/rtx-1.7.json.

Needs gcc, readelf, and a Python of the version that the wheel is for (--python names another than this one).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SCHEMA = "motedge.tensorrt-api/v1"
_MODULES = ("/tensorrt.so", "/tensorrt_rtx.so")
# Of the libraries behind the module, not of the C++ runtime
_OWN_LIBRARY = re.compile(r"\[(lib(?:nv|tensorrt_)\w+\.so\.\d+)\]")
# Undefined symbols that no system library has
_OWN_SYMBOL = re.compile(r" UND ((?:get|create|init|_ZN\d+nv)\w+)$", re.MULTILINE)

# Runs in the wheel's own Python, with the empty libraries. Enum values and members as pybind11 shows them
_INSPECT = """
import importlib.machinery, importlib.util, json, sys
name = sys.argv[1].rpartition("/")[2].partition(".")[0]
loader = importlib.machinery.ExtensionFileLoader(name, sys.argv[1])
spec = importlib.util.spec_from_loader(name, loader)
module = importlib.util.module_from_spec(spec)
loader.exec_module(module)

def signatures(member):
    lines = (getattr(member, "__doc__", None) or "").splitlines()
    found = [line.split(". ", 1)[-1].strip() for line in lines if "(" in line and " -> " in line]
    return [line for line in found if line.split("(")[0].isidentifier()]

def describe(cls):
    base = [b.__name__ for b in cls.__mro__[1:] if b.__module__.startswith("tensorrt")]
    entry = {"bases": base}
    values = getattr(cls, "__members__", None)
    if values is not None:
        entry["values"] = {name: int(value) for name, value in values.items()}
        return entry
    entry["properties"] = {}
    entry["methods"] = {}
    for name, member in sorted(vars(cls).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property):
            entry["properties"][name] = "read-write" if member.fset else "read-only"
        elif callable(member) or isinstance(member, staticmethod):
            entry["methods"][name] = signatures(member)
    return entry

classes = {}
def walk(owner, prefix):
    for name, value in sorted(vars(owner).items()):
        if isinstance(value, type) and not name.startswith("_") and value.__module__.startswith("tensorrt"):
            classes[prefix + name] = describe(value)
            if "values" not in classes[prefix + name]:
                walk(value, prefix + name + ".")
walk(module, "")
found = sorted(vars(module).items())
functions = {n: signatures(v) for n, v in found if type(v).__name__ == "builtin_function_or_method"}
print(json.dumps({"functions": functions, "classes": classes}))
"""


def main() -> int:
    """Extracts one wheel into one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=sys.executable, help="a Python of the version that the wheel is for")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(args.wheel) as archive:
            (member,) = [entry for entry in archive.namelist() if entry.endswith(_MODULES)]
            module = Path(archive.extract(member, folder))
        make_empty_libraries(module, folder)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        command = [args.python, "-c", _INSPECT, str(module)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return 1
    distribution, version = args.wheel.name.split("-")[:2]
    api = {"schema": SCHEMA, "distribution": distribution, "version": version, **json.loads(done.stdout)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(api, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(api['classes'])} classes, {len(api['functions'])} functions")
    return 0


def make_empty_libraries(module: Path, folder: Path) -> None:
    """Writes the shared libraries that `module` is linked to, every function of which returns 0."""
    needed = _OWN_LIBRARY.findall(_readelf("-d", module))
    symbols = _OWN_SYMBOL.findall(_readelf("--dyn-syms", module))
    source = folder / "empty.c"
    source.write_text("".join(f"long {symbol}(void) {{ return 0; }}\n" for symbol in sorted(set(symbols))))
    for library in needed:
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True)


def _readelf(what: str, module: Path) -> str:
    return subprocess.run(["readelf", "-W", what, str(module)], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
