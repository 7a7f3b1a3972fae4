"""The contract of a graph: every tensor's name, dims, dtype, meaning, unit, and the range of its dynamic dims."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from motedge.bundle.dims import LEGEND
from motedge.errors import BundleError, ContractError

CONTRACT_SCHEMA = "motedge.contract/v1"
# "graph": the graph's own floating type, which differs by variant
DTYPES = ("fp32", "int64", "graph")

Dim = Union[str, int]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    # Letters of the legend, or numbers
    dims: tuple[Dim, ...]
    # One of DTYPES
    dtype: str
    meaning: str
    # Physical unit or scale, "1" for none
    unit: str = "1"

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The numeric shape, with every letter looked up in `sizes`.

        Raises:
            ContractError: a letter has no value.
        """
        missing = [d for d in self.dims if isinstance(d, str) and d not in sizes]
        if missing:
            raise ContractError(
                f"the shape of {self.name!r} is not known",
                expected=f"values for {', '.join(missing)} ({', '.join(LEGEND.get(m, m) for m in missing)})",
                got=dict(sizes),
            )
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.dims)


@dataclass(frozen=True)
class Contract:
    """All tensors of one graph, whatever the variant."""

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    # Fixed sizes by letter
    sizes: Mapping[str, int]
    # Dynamic sizes by letter: (min, opt, max)
    profile: Mapping[str, tuple[int, int, int]]

    def __post_init__(self) -> None:
        for letter, (low, opt, high) in self.profile.items():
            if not 0 <= low <= opt <= high or not high:
                raise ContractError(
                    f"graph {self.graph!r}: the profile of {letter} is not ordered",
                    expected="0 <= min <= opt <= max, and not 0 alone",
                    got=(low, opt, high),
                )

    def tensor(self, name: str) -> TensorSpec:
        """The input or output of that name; ContractError if there is none."""
        for spec in (*self.inputs, *self.outputs):
            if spec.name == name:
                return spec
        raise ContractError(
            f"graph {self.graph!r} has no tensor {name!r}",
            expected=", ".join(s.name for s in (*self.inputs, *self.outputs)),
        )

    def check_dims(self, dims: Mapping[str, int]) -> None:
        """Raises ContractError unless each dynamic letter in `dims` lies within its profile."""
        for letter, value in dims.items():
            if letter not in self.profile:
                continue
            low, _, high = self.profile[letter]
            if not low <= value <= high:
                raise ContractError(
                    f"graph {self.graph!r} was exported for another range of {letter} ({LEGEND.get(letter, letter)})",
                    expected=f"{low} to {high}",
                    got=value,
                    fix="shorten the request, or export with a shape set that allows it",
                )

    def optimum(self) -> dict[str, int]:
        """Every letter's size, dynamic ones at their optimum."""
        return {**self.sizes, **{letter: opt for letter, (_, opt, _) in self.profile.items()}}

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the legend of the letters used, so that the file explains itself."""
        letters = {d for s in (*self.inputs, *self.outputs) for d in s.dims if isinstance(d, str)}
        return {
            "schema": CONTRACT_SCHEMA,
            "graph": self.graph,
            "inputs": [dataclasses.asdict(s) for s in self.inputs],
            "outputs": [dataclasses.asdict(s) for s in self.outputs],
            "sizes": dict(self.sizes),
            "profile": {letter: list(v) for letter, v in self.profile.items()},
            "legend": {letter: LEGEND[letter] for letter in sorted(letters) if letter in LEGEND},
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Contract:
        """Parses the JSON form; BundleError on another schema or a missing field."""
        if raw.get("schema") != CONTRACT_SCHEMA:
            raise BundleError("a contract of another schema", expected=CONTRACT_SCHEMA, got=raw.get("schema"))
        try:
            return cls(
                graph=raw["graph"],
                inputs=_specs(raw["inputs"]),
                outputs=_specs(raw["outputs"]),
                sizes={k: int(v) for k, v in raw["sizes"].items()},
                profile={k: (int(v[0]), int(v[1]), int(v[2])) for k, v in raw["profile"].items()},
            )
        except (KeyError, TypeError, IndexError) as error:
            raise BundleError("a contract lacks a field or holds a wrong type", got=repr(error)) from error


def _specs(raw: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(item["name"], tuple(item["dims"]), item["dtype"], item["meaning"], item.get("unit", "1"))
        for item in raw
    )
