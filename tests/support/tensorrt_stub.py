"""A module that has exactly what one TensorRT release's Python module has, to run the builder on.

Classes, members, enum values and signatures come from the real bindings (tests/data/tensorrt_api/, by
scripts/extract_tensorrt_api.py). Using what the release lacks raises AttributeError, setting a read-only property or an
unknown attribute too, and a call that fits no signature TypeError: as with the real module. What the members do is a
stage set (tensorrt_stub_scene.py): enough to let a build run through.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data" / "tensorrt_api"
VERSIONS = ("8.6", "10.3", "10.13", "10.16", "11.4")
# (class, member) -> what it does: a function for a method, a value for a property
Behaviour = Mapping[tuple[str, str], Any]
_PARAMETER = re.compile(r"(\w+)(?:: [^,=]*(?:\[[^\]]*\])?)?( = [^,]*)?")


def read_api(version: str) -> dict[str, Any]:
    """The recorded API of a release, by the name of its row."""
    value: dict[str, Any] = json.loads((DATA / f"{version}.json").read_text(encoding="utf-8"))
    return value


def make_module(version: str, behaviour: Behaviour) -> ModuleType:
    """The stub of a release. What `behaviour` says of members that the release lacks is left out."""
    api = read_api(version)
    module = ModuleType("tensorrt")
    module.__version__ = api["version"]  # type: ignore[attr-defined]
    classes: dict[str, type] = {}
    for name in sorted(api["classes"], key=lambda n: len(api["classes"][n]["bases"])):
        entry = api["classes"][name]
        made = _enum(name, entry) if "values" in entry else _class(name, entry, classes, behaviour)
        classes[name] = made
    for name, made in classes.items():
        owner, _, last = name.rpartition(".")
        setattr(classes[owner] if owner else module, last, made)
    for name in api["functions"]:
        setattr(module, name, behaviour.get(("", name), lambda *args: None))
    return module


def _enum(name: str, entry: Mapping[str, Any]) -> type:
    return enum.IntEnum(name.rpartition(".")[2], entry["values"])


def _class(name: str, entry: Mapping[str, Any], classes: Mapping[str, type], behaviour: Behaviour) -> type:
    bases = tuple(classes[base] for base in entry["bases"][:1]) or (_Strict,)
    members: dict[str, Any] = {"__module__": "tensorrt", "_known": dict(entry["properties"])}
    for member, signatures in entry["methods"].items():
        if member != "__init__":
            does = behaviour.get((name, member), _nothing)
            members[member] = _checked(member, does, signatures)
    for member, access in entry["properties"].items():
        members[member] = _property(name, member, access, behaviour)
    if (name, "__init__") in behaviour:
        members["__init__"] = behaviour[name, "__init__"]
    return type(name.rpartition(".")[2], bases, members)


class _Strict:
    """As pybind11's classes: no attributes but the declared ones. Python's subclasses may have their own."""

    _known: Mapping[str, str] = {}

    def __init__(self, *args: Any) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        own = type(self).__module__ == "tensorrt"
        if own and name != "__class__" and not name.startswith("stub_") and not isinstance(_find(self, name), property):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


def _find(value: Any, name: str) -> Any:
    return next((vars(cls)[name] for cls in type(value).__mro__ if name in vars(cls)), None)


def _property(owner: str, name: str, access: str, behaviour: Behaviour) -> property:
    def read(self: Any) -> Any:
        default = behaviour.get((owner, name))
        value = default(self) if callable(default) and not isinstance(default, type) else default
        return vars(self).get(f"stub_{name}", value)

    def write(self: Any, value: Any) -> None:
        object.__setattr__(self, f"stub_{name}", value)

    return property(read, write if access == "read-write" else None)


def _nothing(self: Any, *args: Any, **named: Any) -> None:
    return None


def _checked(name: str, does: Callable[..., Any], signatures: Sequence[str]) -> Callable[..., Any]:
    """A method that refuses calls that fit no recorded signature; without one, any call."""
    shapes = [_shape(signature) for signature in signatures]

    def method(self: Any, *args: Any, **named: Any) -> Any:
        if shapes and not any(_fits(shape, len(args), named) for shape in shapes):
            raise TypeError(f"{name}(): incompatible function arguments: {args} {named}; supported: {signatures}")
        return does(self, *args, **named)

    return method


def _shape(signature: str) -> list[tuple[str, bool]]:
    """Parameters after self: name, and whether it has a default."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    found = [_PARAMETER.match(part.strip()) for part in re.split(r",(?![^\[]*\])", inside) if part.strip()]
    return [(match.group(1), match.group(2) is not None) for match in found if match][1:]


def _fits(shape: list[tuple[str, bool]], given: int, named: Mapping[str, Any]) -> bool:
    names = [name for name, _ in shape]
    rest = shape[given:]
    return given <= len(shape) and set(named) <= set(names[given:]) and all(d or n in named for n, d in rest)
