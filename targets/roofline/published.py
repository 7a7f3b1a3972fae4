"""Published and measured times of Cosmos 3 on devices of the catalogue, and the work that each stands for."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.checkpoint.presets import preset
from motedge.errors import InternalError, closest
from motedge.targets.catalog import MARKS, load_target
from motedge.targets.roofline.model import (
    PRECISIONS,
    decode_token,
    encode_image,
    generator_step,
    prompt_prefill,
    total,
)
from motedge.targets.roofline.work import Work

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "motedge.published/v1"
REQUEST, DENOISE, DECODE = COMPUTED = ("request", "denoise", "decode")
# (rows, columns) of the picture that a DROID policy encodes
_CANVAS = (544, 736)


@dataclass(frozen=True)
class PublishedFigure:
    """One time that somebody published."""

    id: str
    # Of the software, or of the figure
    publisher: str
    source: str
    # One of the catalogue's marks
    mark: str
    # Id of a device
    target: str
    # "edge", "nano" or "super", at full size
    model: str
    # One of COMPUTED
    computed: str
    # Generator tokens of a forward
    rows: int
    # Prompt tokens, of the conditional branch first; for a decoded token: what came before it
    und: tuple[int, ...]
    forwards: int
    # One of PRECISIONS
    precision: str
    seconds: float
    # Whether the fit takes it; if not, why not
    fitted: bool = True
    why: str = ""
    # Who held the clock; empty: the publisher
    measured_by: str = ""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("mark", self.mark, MARKS),
            ("precision", self.precision, PRECISIONS),
            ("computed", self.computed, COMPUTED),
        ):
            if value not in known:
                raise InternalError(f"published.toml: {self.id}: {what} {value!r}; {closest(value, known)}")
        if self.seconds <= 0 or self.fitted == bool(self.why):
            raise InternalError(
                f"published.toml: {self.id}: a time above 0, and a reason if and only if it is not fitted"
            )
        load_target(self.target)

    @property
    def origin(self) -> str:
        """Figures of one origin share a clock and a set-up: they are left out together when the fit is judged."""
        return self.measured_by or self.publisher

    def work(self) -> Work:
        """What was computed in that time."""
        config, precision = preset(self.model, "full").transformer, PRECISIONS[self.precision]
        if self.computed == DECODE:
            return decode_token(config, self.und[0], precision)
        # Branches of guidance differ by the length of their prompt, which is small beside the rows
        forwards = (self.forwards, generator_step(config, self.rows, self.und[0], precision))
        if self.computed == DENOISE:
            return total([forwards])
        prefills = [(1, prompt_prefill(config, length)) for length in self.und]
        return total([*prefills, (1, encode_image(_CANVAS)), forwards])


@functools.lru_cache(maxsize=1)
def published_figures() -> tuple[PublishedFigure, ...]:
    """All of them, in the order of the file."""
    path = importlib.resources.files("motedge.targets.roofline") / "data" / "published.toml"
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    if raw.get("schema") != SCHEMA:
        raise InternalError("published.toml has another schema")
    figures = tuple(_figure(entry) for entry in raw["figure"])
    if len({figure.id for figure in figures}) != len(figures):
        raise InternalError("published.toml: two figures have one id")
    return figures


def _figure(entry: Mapping[str, Any]) -> PublishedFigure:
    known = {field.name for field in dataclasses.fields(PublishedFigure)}
    for key in entry:
        if key not in known:
            raise InternalError(f"published.toml: unknown key {key!r}; {closest(key, known)}")
    return PublishedFigure(**{**entry, "und": tuple(entry["und"])})
