"""Recipes: which projection of which graph is quantized by which scheme. TOML, frozen, with a revision.

schema = "motedge.recipe/v1"
id = "fp8"
revision = 1
summary = "W8A8 in E4M3"
[gen_step]
default = "fp8"
[[gen_step.rules]]          # the first rule that matches decides
match = "layers.-1.*"       # glob over site names; -1 is the last layer (also in "*layers.-1.*" and "blocks.-1.*")
scheme = "none"
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from motedge.errors import UsageError, closest
from motedge.quant.schemes import Scheme, find_scheme
from motedge.targets.catalog import Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "motedge.recipe/v1"
NONE = "none"
_HEAD = ("id", "revision", "summary")
# Graphs with towers' layers; `und` and `vision_encoder` are the reasoner's
GRAPHS = ("gen_step", "und_prefill", "und", "vision_encoder")
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# They are the other parts of a variant's id
_TAKEN = ("fused", "primitive", "fp32", "fp16", "bf16")
_LAYER = re.compile(r"(layers|blocks)\.(-?\d+)\.")


@dataclass(frozen=True)
class Rule:
    """Gives a scheme to the sites that a pattern matches."""

    # Glob over site names, case-sensitive; * crosses dots. `layers.-1.` counts from the last layer
    match: str
    # Id of a scheme, or "none"
    scheme: str

    def __post_init__(self) -> None:
        _require("a rule's match", self.match, str)
        _require("a rule's scheme", self.scheme, str)
        _scheme(self.scheme)


@dataclass(frozen=True)
class GraphRecipe:
    """The scheme of every projection of one graph."""

    # For every site that no rule matches
    default: str
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        _require("default", self.default, str)
        _scheme(self.default)


@dataclass(frozen=True)
class Recipe:
    """A whole recipe."""

    # Kebab-case; part of variant ids and file names
    id: str
    # Raised whenever the content changes
    revision: int
    summary: str
    graphs: Mapping[str, GraphRecipe]

    def __post_init__(self) -> None:
        _require("id", self.id, str)
        _require("revision", self.revision, int)
        _require("summary", self.summary, str)
        if not _ID.fullmatch(self.id) or self.id in _TAKEN:
            raise UsageError(
                "a recipe's id does not fit",
                expected=f"lower-case words joined by hyphens, none of {', '.join(_TAKEN)}",
                got=repr(self.id),
                why="it becomes part of variant ids and file names",
            )
        if self.revision < 1:
            raise UsageError("a recipe's revision does not fit", expected="1 or more", got=self.revision)
        for graph in self.graphs:
            if graph not in GRAPHS:
                raise UsageError(f"recipe {self.id!r}: unknown graph {graph!r}", fix=closest(graph, GRAPHS))
        if not self.schemes():
            raise UsageError(
                f"recipe {self.id!r} quantizes nothing", expected='a scheme other than "none" in some graph'
            )

    def schemes(self) -> list[Scheme]:
        """Every scheme that it may give, in order of appearance."""
        names = [
            name
            for recipe in self.graphs.values()
            for name in (recipe.default, *(rule.scheme for rule in recipe.rules))
        ]
        return [find_scheme(name) for name in dict.fromkeys(names) if name != NONE]

    def resolve(self, graph: str, sites: Sequence[str]) -> dict[str, Scheme]:
        """The scheme of each site of a graph; sites that stay as they are have no entry.

        Raises:
            UsageError: a rule that matches no site, or that never decides because earlier rules take all its sites.
        """
        recipe = self.graphs.get(graph)
        if recipe is None:
            return {}
        patterns = [_counted(rule.match, sites) for rule in recipe.rules]
        found, decided = {}, set()
        for site in sites:
            index = next((i for i, pattern in enumerate(patterns) if fnmatchcase(site, pattern)), None)
            name = recipe.default if index is None else recipe.rules[index].scheme
            decided.add(index)
            if name != NONE:
                found[site] = find_scheme(name)
        for index, rule in enumerate(recipe.rules):
            if index not in decided:
                self._refuse_rule(graph, rule, sites, shadowed=any(fnmatchcase(s, patterns[index]) for s in sites))
        return found

    def check_target(self, target: Target) -> None:
        """UsageError if a scheme needs more than the target's GPU has; names the built-in recipes that run there."""
        sm = target.compute_capability
        if sm is None:
            # onnxruntime on a CPU runs every scheme; NVFP4 in emulation
            return
        for scheme in self.schemes():
            if sm < scheme.least_sm:
                fitting = [r.id for r in builtin_recipes().values() if all(s.least_sm <= sm for s in r.schemes())]
                raise UsageError(
                    f"recipe {self.id!r} can't run on {target.id}",
                    expected=f"compute capability {scheme.least_sm} or higher, for scheme {scheme.id}",
                    got=f"{target.name} has {sm}",
                    why=scheme.least_sm_source,
                    fix=f"take {' or '.join(fitting)}",
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_toml(self) -> str:
        """The text that `parse_recipe` reads back as an equal recipe."""
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self._head().items()]
        for graph, recipe in self.graphs.items():
            lines += ["", f"[{graph}]", f"default = {json.dumps(recipe.default)}"]
            for rule in recipe.rules:
                lines += [f"[[{graph}.rules]]", f"match = {json.dumps(rule.match, ensure_ascii=False)}"]
                lines += [f"scheme = {json.dumps(rule.scheme)}"]
        return "\n".join(lines) + "\n"

    def fingerprint(self) -> str:
        """Hex sha256 of what it says; the summary does not count."""
        said = {**self.to_dict(), "summary": ""}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _head(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "id": self.id, "revision": self.revision, "summary": self.summary}

    def _refuse_rule(self, graph: str, rule: Rule, sites: Sequence[str], *, shadowed: bool) -> None:
        projections = dict.fromkeys(_LAYER.sub(r"\1.*.", site) for site in sites)
        if shadowed:
            problem, why = "never decides", "earlier rules take every projection that it matches: the first one wins"
        else:
            problem, why = "matches nothing", "the layers that it was meant for would silently get another scheme"
        raise UsageError(
            f"recipe {self.id!r}: the rule {rule.match!r} of {graph} {problem}",
            why=why,
            fix=closest(rule.match, projections),
        )


def parse_recipe(text: str, source: str) -> Recipe:
    """A recipe from TOML; `source` names the file in messages.

    Raises:
        UsageError: not TOML, another schema, an unknown key, graph or scheme, a value of a wrong kind.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not TOML", got=str(error)) from error
    if raw.pop("schema", None) != SCHEMA:
        raise UsageError(f"{source} is not a recipe", expected=f'schema = "{SCHEMA}"')
    head = {key: raw.pop(key) for key in _HEAD if key in raw}
    for key in raw:
        if key not in GRAPHS:
            raise UsageError(
                f"{source}: unknown key {key!r}", fix=closest(key, (*GRAPHS, *("id", "revision", "summary")))
            )
    graphs = {graph: _graph(f"{source}: {graph}", table) for graph, table in raw.items()}
    try:
        return Recipe(**head, graphs=graphs)
    except TypeError as error:
        raise UsageError(f"{source} lacks a field", expected="id, revision and summary", got=str(error)) from error


def load_recipe(name: str) -> Recipe:
    """A built-in recipe by its id, or one from a .toml file.

    Raises:
        UsageError: unknown, unreadable, or see `parse_recipe`.
    """
    if not name.endswith(".toml"):
        known = builtin_recipes()
        if name not in known:
            raise UsageError(f"unknown recipe {name!r}", fix=f"{closest(name, known)}; or a .toml file")
        return known[name]
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the recipe {name}", got=str(error)) from error
    return parse_recipe(text, name)


@functools.lru_cache(maxsize=1)
def builtin_recipes() -> Mapping[str, Recipe]:
    """The recipes that come with motedge, by id."""
    folder = importlib.resources.files("motedge.quant") / "data" / "recipes"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    recipes = [parse_recipe(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {recipe.id: recipe for recipe in recipes}


def _graph(where: str, table: Any) -> GraphRecipe:
    values = _known(where, table, ("default", "rules"))
    if "default" not in values:
        raise UsageError(
            f"{where} lacks its default", expected='the scheme of every projection without a rule, or "none"'
        )
    rules = values.get("rules", [])
    _require(f"{where}.rules", rules, list)
    made = []
    for rule in rules:
        fields = _known(f"{where}.rules", rule, ("match", "scheme"))
        if len(fields) < 2:
            raise UsageError(f"{where}: a rule lacks a field", expected="match and scheme", got=fields)
        made.append(Rule(**fields))
    return GraphRecipe(values["default"], tuple(made))


def _known(where: str, table: Any, keys: Sequence[str]) -> dict[str, Any]:
    _require(where, table, dict)
    for key in table:
        if key not in keys:
            raise UsageError(f"{where}: unknown key {key!r}", fix=closest(key, keys))
    return dict(table)


def _require(what: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UsageError(f"{what} is of a wrong kind", expected=kind.__name__, got=repr(value))


def _scheme(name: str) -> None:
    if name != NONE:
        find_scheme(name)


def _counted(pattern: str, sites: Sequence[str]) -> str:
    """`layers.-1.*` with the number that it means in this graph."""
    layers = [int(match.group(2)) for site in sites if (match := _LAYER.search(site))]
    found = _LAYER.search(pattern)
    if not layers or not found or int(found.group(2)) >= 0:
        return pattern
    return _LAYER.sub(rf"\g<1>.{max(layers) + 1 + int(found.group(2))}.", pattern, count=1)
