"""The robots and vehicles that Cosmos 3 has action projections for, by name. Data: ../data/embodiments.toml."""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from motedge.errors import InternalError, ObservationError, UsageError, closest
from motedge.runtime.actions.layout import Layout, layout_from_blocks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Embodiment:
    """One kind of robot, as the model knows it."""

    name: str
    # Row of the action projections, 0 to 31; several embodiments may share one
    domain_id: int
    # Used channels of an action row; None where it depends on the data set
    raw_dim: Optional[int] = None
    # The same for base models, where it differs from the policies'
    base_raw_dim: Optional[int] = None
    # How its policies are served, a name of `motedge.runtime.policy.protocols`; None where motedge does not know it
    protocol: Optional[str] = None
    # Name and unit of each used channel, in order; empty where they are not known
    fields: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    # Least and greatest value of each channel; empty where no source gives them
    limits: tuple[tuple[float, float], ...] = ()
    # What the channels are, by the name of the variant; empty where only their number is known
    layouts: Mapping[str, Layout] = field(default_factory=dict, hash=False)
    # The variant that is `raw_dim` wide, where there are several
    layout: Optional[str] = None
    # Where the camera may be, the usual one first
    viewpoints: tuple[str, ...] = ()
    # What is said of views that are put together
    view_detail: str = ""
    # How raw actions become the model's, "none" for as they are; None where it is not published
    normaliser: Optional[str] = None
    # The same for base models, where it differs from the policies'
    base_normaliser: Optional[str] = None
    # File of the statistics in the framework's normalizer_stats; not shipped
    stats: Optional[str] = None
    # Rows a second of the data that it was trained with
    rate_hz: Optional[float] = None
    # Whether row 0 is the current state
    state_row: bool = False

    def __post_init__(self) -> None:
        named = len(self.fields) or self.protocol is not None
        if named and not len(self.fields) == len(self.units) == self.raw_dim:
            raise InternalError(f"embodiments.toml: fields, units and raw_dim of {self.name} disagree")
        if self.limits and len(self.limits) != self.raw_dim:
            raise InternalError(f"embodiments.toml: limits and raw_dim of {self.name} disagree")

    def find_layout(self, width: Optional[int] = None) -> Layout:
        """The channels of an action row; of the variant that is `width` wide, where there are several.

        Raises:
            ObservationError: no variant of that width is known, or none at all, or several and no width to choose by.
        """
        known = {layout.width: layout for layout in self.layouts.values()}
        width = width or self.raw_dim or (next(iter(known)) if len(known) == 1 else None)
        if width is None or width not in known:
            raise ObservationError(
                f"the channels of embodiment {self.name!r} are not known",
                expected=f"a width of {' or '.join(map(str, sorted(known)))}" if known else "a published layout",
                got="no width" if width is None else width,
                why=None if known else "only the number of its channels is published",
            )
        return known[width]

    def framing(self, viewpoint: Optional[str] = None) -> str:
        """What a prompt says of the camera, word for word as in training.

        Args:
            viewpoint: Where it is; None: the usual place, in front of the eyes where none is published.

        Raises:
            UsageError: an unknown viewpoint.
        """
        chosen = viewpoint or (self.viewpoints[0] if self.viewpoints else "ego_view")
        sentences = load_viewpoints()
        if chosen not in sentences:
            raise UsageError(f"unknown viewpoint {chosen!r}", fix=closest(chosen, sentences))
        detail = self.view_detail if chosen == "concat_view" else ""
        return f"{sentences[chosen]} {detail}".rstrip()


def find_embodiment(name: str) -> Embodiment:
    """The embodiment of that name, whatever its case.

    Raises:
        ObservationError: no embodiment is called so; names the closest.
    """
    known = load_embodiments()
    key = name.lower().strip()
    if key not in known:
        raise ObservationError(f"unknown embodiment {name!r}", fix=closest(key, known))
    return known[key]


@functools.lru_cache(maxsize=1)
def load_embodiments() -> Mapping[str, Embodiment]:
    """All embodiments by name."""
    return {name: _from_table(name, entry) for name, entry in _read("embodiments.toml").items()}


@functools.lru_cache(maxsize=1)
def load_viewpoints() -> Mapping[str, str]:
    """The sentence of each place of the camera, by its name."""
    return {name: str(sentence) for name, sentence in _read("embodiments_viewpoints.toml").items()}


def _from_table(name: str, entry: Mapping[str, Any]) -> Embodiment:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    if "limits" in values:
        values["limits"] = tuple((float(low), float(high)) for low, high in values["limits"])
    layouts = {variant: layout_from_blocks(blocks) for variant, blocks in values.pop("layouts", {}).items()}
    chosen = layouts.get(values.get("layout", next(iter(layouts), "")))
    if "raw_dim" in values and chosen is not None:
        if chosen.width != values["raw_dim"]:
            raise InternalError(f"embodiments.toml: layout and raw_dim of {name} disagree")
        values.setdefault("fields", chosen.fields)
        values.setdefault("units", chosen.units)
    return Embodiment(name=name, layouts=layouts, **values)


def _read(file: str) -> dict[str, Any]:
    text = (importlib.resources.files("motedge.runtime") / "data" / file).read_text(encoding="utf-8")
    return tomllib.loads(text)
