"""One search from a bundle and observations to its folder: sensitivity.json, mixed.toml, sensitivity.html."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.files import atomic_open, write_json
from motedge.quant.calibration.result import Calibration
from motedge.quant.parameters import SiteParameters
from motedge.quant.recipe import Recipe, load_recipe
from motedge.quant.sensitivity.executors import Executor, open_executor
from motedge.quant.sensitivity.ledger import Ledger, begun_with
from motedge.quant.sensitivity.options import SearchOptions
from motedge.quant.sensitivity.page import render_page
from motedge.quant.sensitivity.ray_cluster import RayCluster
from motedge.quant.sensitivity.recording import record_workload
from motedge.quant.sensitivity.report import SCHEMA, make_report, mixed_recipe
from motedge.quant.sensitivity.search import Findings, Search
from motedge.quant.sensitivity.space import Space, open_space
from motedge.quant.sensitivity.worker import WorkerSetup
from motedge.quant.sensitivity.workload import Workload, check_forwards
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.policy.observation import Observation
from motedge.runtime.schedule import FlowSchedule

REPORT, RECIPE, PAGE, WORKLOAD = "sensitivity.json", "mixed.toml", "sensitivity.html", "workload.npz"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What a search needs to know beside the bundle; made when it is clear that something is left to do."""

    calibration: Calibration
    # Observations that the search may learn from, and those on which mixtures are compared
    seen: Sequence[Observation]
    held_out: Sequence[Observation]


@dataclass(frozen=True)
class SearchPlan:
    """A search that was checked, not begun."""

    bundle: Bundle
    recipes: tuple[Recipe, ...]
    space: Space
    out: Path
    options: SearchOptions
    # Everything that determines the costs: bundle, data, forwards, types
    identity: Mapping[str, Any]

    @property
    def request(self) -> dict[str, Any]:
        """What else determines the documents."""
        target = vars(self.options.target)
        recipes = {recipe.id: recipe.fingerprint() for recipe in self.recipes}
        return {"recipes": recipes, "metric": self.options.metric, "target": target, "front": self.options.front}

    def earlier_report(self) -> Optional[dict[str, Any]]:
        """The finished document of the same search, if all its files are there."""
        path = self.out / REPORT
        if not path.is_file() or not (self.out / PAGE).is_file():
            return None
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None
        same = report.get("identity") == _plain(self.identity) and report.get("request") == _plain(self.request)
        complete = report.get("recipe") is None or (self.out / RECIPE).is_file()
        return report if same and complete and report.get("schema") == SCHEMA else None


def plan_search(
    bundle: Bundle, recipes: Sequence[Recipe], data: Mapping[str, Any], out: Path, options: SearchOptions
) -> SearchPlan:
    """Checks everything that can be checked before any work.

    Args:
        bundle: an unquantized bundle.
        recipes: where the schemes of each site come from.
        data: what the observations are, JSON; part of the identity.
        out: the results folder.
        options: how to measure, and the target.

    Raises:
        BundleError: the bundle is quantized already.
        UsageError: recipes that quantize nothing, a size that can't be reached, too few forwards, a folder of another
            search.
    """
    space = open_space(bundle, recipes)
    limit = options.target.bytes_for(space.weights)
    if limit is not None:
        space.check_bytes(limit, space.least_bytes)
    settings = sampler_settings(bundle.manifest.policy, {})
    timesteps = FlowSchedule(settings.steps, settings.shift).timesteps
    check_forwards(options.forwards, settings.guidance_plan().forwards(timesteps))
    identity = {
        "origin": bundle.manifest.model["checkpoint"]["fingerprint"],
        "shape_set": bundle.manifest.shape_set["name"],
        "policy": dict(bundle.manifest.policy),
        **data,
        "seed": options.seed,
        "forwards": options.forwards,
        "compute": options.compute,
        "device": options.device.partition(":")[0],
    }
    begun_with(out, identity)
    return SearchPlan(bundle, tuple(recipes), space, out, options, identity)


def run_search(
    plan: SearchPlan, evidence: Callable[[], Evidence], *, jobs: int = 1, ray: bool = False
) -> tuple[dict[str, Any], bool]:
    """Runs what is missing and writes the three files.

    Args:
        plan: see plan_search.
        evidence: called when something is left to do.
        jobs: workers; with `ray`, 0 takes one a core of the cluster.
        ray: spread them over a Ray cluster.

    Returns:
        The document, and whether anything had to be done.

    Raises:
        UsageError: an option that does not fit the data; a damaged ledger.
        HostError: a worker died, the disk is full. What was measured is kept.
    """
    earlier = plan.earlier_report()
    if earlier is not None:
        return earlier, False
    ledger = Ledger(plan.out, plan.identity)
    known = evidence()
    if ledger.begun:
        # Of another search that stopped before it had measured anything
        (plan.out / WORKLOAD).unlink(missing_ok=True)
    workload = _workload(plan, known)
    parameters = _parameters(plan.space, known.calibration)
    setup = WorkerSetup(plan.bundle.root.resolve(), workload, parameters, plan.options.compute, plan.options.device)
    executor: Executor = RayCluster(setup, jobs or None) if ray else open_executor(setup, jobs)
    try:
        findings = Search(plan.space, ledger, executor, plan.options).run(workload.settings.steps)
    finally:
        executor.close()
    return _write(plan, findings, ledger, workload, known.calibration), True


def _workload(plan: SearchPlan, known: Evidence) -> Workload:
    """The recorded forwards: kept from an interrupted run, so that what it measured stays comparable."""
    path = plan.out / WORKLOAD
    if path.exists():
        return Workload.load(path)
    workload = record_workload(plan.bundle, known.seen, known.held_out, plan.options)
    workload.save(path)
    return workload


def _parameters(space: Space, calibration: Calibration) -> dict[str, dict[tuple[str, str], SiteParameters]]:
    found: dict[str, dict[tuple[str, str], SiteParameters]] = {}
    for graph, sites in space.schemes().items():
        found[graph] = {}
        for site, schemes in sites.items():
            for scheme in schemes:
                found[graph][site, scheme.id] = calibration.parameters(graph, {site: scheme})[site]
    return found


def _write(
    plan: SearchPlan, findings: Findings, ledger: Ledger, workload: Workload, calibration: Calibration
) -> dict[str, Any]:
    recipe = mixed_recipe(plan.space, findings, plan.options)
    model = plan.bundle.manifest.model
    report = {
        "schema": SCHEMA,
        "identity": _plain(plan.identity),
        "request": _plain(plan.request),
        "model": {name: model.get(name) for name in ("family", "variant", "revision", "checkpoint")},
        "embodiment": plan.bundle.manifest.policy.get("embodiment"),
        "recipe": None if recipe is None else {"file": RECIPE, "fingerprint": recipe.fingerprint()},
        **make_report(plan.space, findings, ledger.records, workload, plan.options),
    }
    report["notes"] += list(calibration.data.notes)
    if recipe is not None:
        with atomic_open(plan.out / RECIPE, "w") as stream:
            stream.write(recipe.to_toml())
        _check_recipe(plan, findings)
    else:
        # One of an earlier target would be taken for this one's
        (plan.out / RECIPE).unlink(missing_ok=True)
    with atomic_open(plan.out / PAGE, "w") as stream:
        stream.write(render_page(report))
    # Last: it says that the others are there
    write_json(plan.out / REPORT, report)
    return report


def _check_recipe(plan: SearchPlan, findings: Findings) -> None:
    """The file gives each site the scheme that was measured."""
    read = load_recipe(str(plan.out / RECIPE))
    for graph, chosen in findings.chosen.assignment.items():
        names = [choice.site.name for choice in plan.space.choices if choice.graph == graph]
        if {site: scheme.id for site, scheme in read.resolve(graph, names).items()} != dict(chosen):
            raise InternalError(f"the rules of {graph} give another assignment than the one that was measured")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
