"""The fidelity report: everything that was measured, the verdict, and where it all comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motedge.errors import BundleError
from motedge.files import atomic_open, write_json
from motedge.quant.fidelity.chunk import ChunkError, JointError
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.loops import VelocityError
from motedge.quant.fidelity.verdict import Deciding, Verdict
from motedge.quant.fidelity.weights import SiteError

SCHEMA = "motedge.fidelity/v1"
JSON, HTML = "report.json", "report.html"


@dataclass(frozen=True)
class FidelityReport:
    """One recipe on one bundle."""

    recipe: str
    verdict: Verdict
    sites: list[SiteError]
    # Empty, and None, where there was nothing held out to measure on
    velocities: list[VelocityError]
    und_kv: Figures | None
    latent: Figures | None
    chunk: ChunkError | None
    # Graph -> {"source_bytes", "quantized_bytes"} of the variant that was measured
    size: Mapping[str, Mapping[str, int]]
    # Where it comes from: model, data, split, engine, versions, machine, seconds
    facts: Mapping[str, Any]
    # What a reader must know
    caveats: list[str]
    # Predicted latency, or why there is none
    latency: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, schema first."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> FidelityReport:
        """Parses the JSON form; BundleError for another schema."""
        values = dict(raw) if isinstance(raw, Mapping) else {}
        schema = values.pop("schema", None)
        if schema != SCHEMA:
            raise BundleError("this is no fidelity report", expected=SCHEMA, got=schema)
        try:
            values["verdict"] = _verdict(values["verdict"])
            values["sites"] = [_site(site) for site in values["sites"]]
            values["velocities"] = [_velocity(entry) for entry in values["velocities"]]
            for name in ("und_kv", "latent"):
                values[name] = _figures(values[name])
            chunk = values["chunk"]
            if chunk is not None:
                joints = [JointError(**joint) for joint in chunk["joints"]]
                values["chunk"] = ChunkError(Figures(**chunk["overall"]), joints, chunk["rows"], chunk["rows_max"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise BundleError("the fidelity report is damaged", got=str(error), fix="quantize again") from error


def write_report(folder: Path, report: FidelityReport) -> None:
    """Writes report.json and report.html."""
    from motedge.quant.fidelity.page import render_page

    write_json(folder / JSON, report.to_dict())
    with atomic_open(folder / HTML, "w") as stream:
        stream.write(render_page(report))


def read_report(folder: Path) -> FidelityReport:
    """Reads report.json; BundleError if there is none, or it is damaged."""
    try:
        raw = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / JSON} can't be read", got=str(error), fix="quantize again") from error
    return FidelityReport.from_dict(raw)


def _figures(raw: Mapping[str, Any] | None) -> Figures | None:
    return None if raw is None else Figures(**raw)


def _verdict(raw: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**raw, "deciding": [Deciding(**entry) for entry in raw["deciding"]]})


def _site(raw: Mapping[str, Any]) -> SiteError:
    return SiteError(**{**raw, "weight": Figures(**raw["weight"]), "activation": _figures(raw["activation"])})


def _velocity(raw: Mapping[str, Any]) -> VelocityError:
    parts = {name: Figures(**raw[name]) for name in ("teacher_forced", "free_running")}
    return VelocityError(**{**raw, **parts})
