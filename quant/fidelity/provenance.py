"""The part of report.html that says where the numbers come from."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from motedge.quant.page.document import details

if TYPE_CHECKING:
    from motedge.quant.fidelity.report import FidelityReport

_DIGITS = 16


def provenance(report: FidelityReport) -> str:
    """Data and conditions in words, and all facts as they are in report.json."""
    facts = report.facts
    rows = [*_made_from(report), *_observations(facts), *_conditions(facts)]
    body = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{html.escape(name)}</th>'
        f'<td style="text-align:left;white-space:normal">{html.escape(words)}</td></tr>'
        for name, words in rows
        if words
    )
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    return (
        f'<h2>Data and conditions</h2><div class="scroll"><table><tbody>{body}</tbody></table></div>'
        f"<p></p>{details('All facts', text)}"
    )


def _made_from(report: FidelityReport) -> list[tuple[str, str]]:
    facts, recipe = report.facts, report.facts["recipe"]
    checkpoint, bundles = facts["model"]["checkpoint"], facts["bundles"]
    revision = "" if recipe["revision"] is None else f", revision {recipe['revision']}"
    return [
        ("checkpoint", f"{checkpoint.get('name', '')}, fingerprint {_short(checkpoint.get('fingerprint'))}"),
        ("bundles", " → ".join(name for name in (bundles["source"], bundles["quantized"]) if name)),
        ("recipe", f"{recipe['id']}{revision}"),
        ("projections", _schemes(report)),
        ("shape set", str(facts["shape_set"])),
    ]


def _schemes(report: FidelityReport) -> str:
    """ "gen_step: 18 fp8; und_prefill: 14 fp8-w8a16"."""
    graphs = dict.fromkeys(site.graph for site in report.sites)
    counts = {graph: Counter(site.scheme for site in report.sites if site.graph == graph) for graph in graphs}
    return "; ".join(
        f"{graph}: " + ", ".join(f"{count} {scheme}" for scheme, count in known.items())
        for graph, known in counts.items()
    )


def _observations(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = facts["data"]
    if data is None:
        return [("data", "none: nothing was calibrated or held out")]
    rows = [("calibrated on", f"{data['dataset']} ({data['kind']}), fingerprint {_short(data['fingerprint'])}")]
    other = data["measured_on"]
    if other is not None and other["fingerprint"] != data["fingerprint"]:
        words = f"{other['dataset']} ({other['kind']}), fingerprint {_short(other['fingerprint'])}"
        rows.append(("measured on", words))
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in data.get("settings", {}).items())
    return [
        *(rows if data["calibration"] else [("measured on", rows[0][1])]),
        ("split", str(data["rule"])),
        ("calibration moments", _moments(data["calibration"])),
        ("held-out moments", _moments(data["held_out"])),
        ("notes on the data", "; ".join(data["notes"])),
        ("calibration settings", settings),
    ]


def _moments(moments: Sequence[Sequence[Any]]) -> str:
    """Moments by group: "0: 47, 252, 338"."""
    groups: dict[str, list[str]] = {}
    for group, index in moments:
        groups.setdefault(str(group), []).append(str(index))
    return "; ".join(f"{group}: {', '.join(known)}" if group else ", ".join(known) for group, known in groups.items())


def _conditions(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine = facts["machine"]
    threads = "" if machine["threads"] is None else f", {machine['threads']} threads"
    return [
        ("compared", str(facts["engine"])),
        ("computed in", str(facts["compute"])),
        ("noise seeds", ", ".join(str(seed) for seed in facts["noise_seeds"])),
        ("machine", f"{machine['cpu']}; device {machine['device']}{threads}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        ("measured at", f"{facts['date']}, {facts['seconds']:g} s"),
    ]


def _short(digest: Any) -> str:
    return str(digest)[:_DIGITS]
