"""What was measured or built: benchmarks/evidence.toml, and the result files that it points into.

schema = "motedge.evidence/v1"
[[evidence]]
state = "measured"                      # or "builds"
targets = ["cpu"]                       # or `engine` with `capabilities`: every device that has both
recipes = ["none"]                      # ids; "none" is the graph as exported
graphs = ["gen_step"]
by = "benchmarks/results/x.json"        # the result file or the test that shows it, from the repository's root
figure = "rows/id=warm/median_ms"       # where in the result file; needed for "measured"
what = "..."                            # conditions, a sentence
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.errors import UsageError, closest
from motedge.targets.catalog import ENGINES, Target, targets
from motedge.targets.catalog.read import known_keys, parse_toml
from motedge.units import format_bytes, format_ms

SCHEMA = "motedge.evidence/v1"
MEASURED, BUILDS = "measured", "builds"
_LISTS = ("targets", "capabilities", "recipes", "graphs")
_TEXTS = ("state", "engine", "by", "figure", "what")
# Last word of a result's name -> how it is written
_UNITS: dict[str, Callable[[float], str]] = {
    "ms": format_ms,
    "s": lambda value: format_ms(1000 * value),
    "seconds": lambda value: format_ms(1000 * value),
    "bytes": format_bytes,
}


@dataclass(frozen=True)
class Evidence:
    """One proof, for every device, recipe and graph that it names."""

    # MEASURED or BUILDS
    state: str
    # Ids; empty: `engine` and `capabilities` say for which
    targets: tuple[str, ...]
    engine: Optional[str]
    capabilities: tuple[float, ...]
    recipes: tuple[str, ...]
    graphs: tuple[str, ...]
    # Path of the result file or the test, from the repository's root
    by: str
    what: str
    # Read from the result file, with its unit: "3.72 s"; None for what is only built
    figure: Optional[str] = None

    def covers(self, target: Target, recipe: str, graph: str) -> bool:
        """Whether it speaks for this cell."""
        device = target.id in self.targets or (
            target.engine == self.engine and target.compute_capability in self.capabilities
        )
        return device and recipe in self.recipes and graph in self.graphs


def read_evidence(root: Path) -> list[Evidence]:
    """Every proof of a repository; empty without the file.

    Raises:
        UsageError: the file does not fit, names what does not exist, or points at no number.
    """
    file = root / "benchmarks" / "evidence.toml"
    if not file.exists():
        return []
    raw = known_keys(file.name, parse_toml(file.read_text(encoding="utf-8"), file.name), ("schema", "evidence"))
    if raw.get("schema") != SCHEMA:
        raise UsageError(f"{file.name} is not a list of evidence", expected=f'schema = "{SCHEMA}"')
    return [_parse(f"{file.name}, entry {i}", table, root) for i, table in enumerate(raw.get("evidence", []), 1)]


def _parse(where: str, table: Any, root: Path) -> Evidence:
    raw = known_keys(where, table, (*_LISTS, *_TEXTS))
    missing = [key for key in ("state", "recipes", "graphs", "by", "what") if key not in raw]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}")
    for key in raw:
        if not isinstance(raw[key], list if key in _LISTS else str):
            raise UsageError(f"{where}: {key} is of a wrong kind", got=repr(raw[key]))
    if raw["state"] not in (MEASURED, BUILDS):
        raise UsageError(f"{where}: unknown state {raw['state']!r}", fix=closest(raw["state"], (MEASURED, BUILDS)))
    _check_devices(where, raw)
    if not (root / raw["by"]).is_file():
        raise UsageError(f"{where}: {raw['by']} does not exist", why="a claim is only as good as what shows it")
    figure = raw.get("figure")
    if (raw["state"] == MEASURED) != (figure is not None):
        raise UsageError(f"{where}: {'a measurement needs' if figure is None else 'what is built has no'} figure")
    return Evidence(
        state=raw["state"],
        targets=tuple(raw.get("targets", ())),
        engine=raw.get("engine"),
        capabilities=tuple(float(number) for number in raw.get("capabilities", ())),
        recipes=tuple(raw["recipes"]),
        graphs=tuple(raw["graphs"]),
        by=raw["by"],
        what=raw["what"],
        figure=None if figure is None else _figure(where, root / raw["by"], figure),
    )


def _check_devices(where: str, raw: Any) -> None:
    for name in raw.get("targets", ()):
        if name not in targets():
            raise UsageError(f"{where}: unknown target {name!r}", fix=closest(str(name), targets()))
    if raw.get("engine", ENGINES[0]) not in ENGINES:
        raise UsageError(f"{where}: unknown engine {raw['engine']!r}", fix=closest(raw["engine"], ENGINES))
    if ("targets" in raw) == ("engine" in raw and "capabilities" in raw):
        raise UsageError(f"{where}: for which devices?", expected="targets, or else engine with capabilities")


def _figure(where: str, file: Path, path: str) -> str:
    """The number at a path such as "rows/id=warm/median_ms", written with the unit that its name ends in."""
    value: Any = json.loads(file.read_text(encoding="utf-8"))
    for step in path.split("/"):
        value = _step(value, step)
    unit = path.rpartition("/")[2].rpartition("_")[2]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or unit not in _UNITS:
        raise UsageError(f"{where}: {path} of {file.name} is no figure", expected="a number in ms, s or bytes")
    return _UNITS[unit](value)


def _step(value: Any, step: str) -> Any:
    name, equals, wanted = step.partition("=")
    if isinstance(value, Sequence) and equals:
        return next((item for item in value if isinstance(item, dict) and str(item.get(name)) == wanted), None)
    return value.get(step) if isinstance(value, dict) else None
