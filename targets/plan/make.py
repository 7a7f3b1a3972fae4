"""Bundle, target, recipe -> plan."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import ContractError, MissingPackageError, MotedgeError
from motedge.quant.schemes import quantized_opset
from motedge.targets.catalog import Target, targets
from motedge.targets.catalog.model import UNVERIFIED
from motedge.targets.legality import (
    TENSORRT_RTX,
    Candidate,
    EngineLibrary,
    Reason,
    find_library,
    judge,
)
from motedge.targets.plan.assumptions import TIGHT_SHARE, WORKSPACE
from motedge.targets.plan.building import build_bytes, plan_build
from motedge.targets.plan.choice import PlannedGraph, choose_graphs, export_command, exported_variant, lacking_releases
from motedge.targets.plan.figures import GraphFigures
from motedge.targets.plan.memory import plan_memory
from motedge.targets.plan.model import GraphPlan, Plan, Stage
from motedge.targets.plan.sampling import Sampling
from motedge.targets.plan.tick import plan_tick
from motedge.targets.roofline.fit import borrowed
from motedge.targets.roofline.roofline import IDEAL, predict
from motedge.targets.roofline.work import Work

# Of a graph's FLOPs
_SMALL_SHARE = 1e-3


@dataclass(frozen=True)
class PlanOptions:
    """What to plan, apart from bundle and target; None: the bundle's or the target's own."""

    recipe: Optional[str] = None
    variant: Optional[str] = None
    # Graphs to plan, of the bundle's
    graphs: Optional[tuple[str, ...]] = None
    # Version of TensorRT, of those that the target's releases have
    tensorrt: Optional[str] = None
    steps: Optional[int] = None
    guidance: Optional[float] = None
    # T, latent frames
    frames: Optional[int] = None
    # Length of the prompt at which time is predicted
    und_len: Optional[int] = None


def make_plan(
    bundle: Bundle,
    target: Target,
    *,
    recipe: Optional[str] = None,
    variant: Optional[str] = None,
    options: Optional[PlanOptions] = None,
    figures: Optional[GraphFigures] = None,
    advise: bool = True,
) -> Plan:
    """Plans a bundle for one target; builds nothing, reads no weights, needs no GPU.

    Args:
        bundle: the bundle.
        target: the device.
        recipe: id of a recipe; None: unquantized, or the bundle's only one.
        variant: "fused-fp16"; None: the best that the target's library takes.
        options: all choices at once, in place of the two above.
        figures: of the same bundle, kept from another plan, so that graphs are read once.
        advise: whether alternatives are tried where something does not fit or is too slow.

    Raises:
        UsageError: an unknown recipe or variant, or sampling that the runtime does not take.
        BundleError: a graph has no variant for the target, or is damaged.
        ContractError: frames or a prompt length outside the profile.
        HostError: the target's releases have no such library.
        MissingPackageError: the onnx package is not installed.
    """
    options = PlanOptions(recipe, variant) if options is None else options
    figures = GraphFigures(bundle) if figures is None else figures
    plan = Planner(figures, target, options).plan()
    if not advise:
        return plan
    from motedge.targets.plan.advice import find_advice

    return dataclasses.replace(plan, advice=tuple(find_advice(figures, target, options, plan)))


class Planner:
    """One plan in the making; advice asks it for parts with something changed."""

    def __init__(self, figures: GraphFigures, target: Target, options: PlanOptions) -> None:
        self.figures, self.target, self.options = figures, target, options
        self.bundle = figures.bundle
        self.library: EngineLibrary = find_library(target, options.tensorrt)
        self.sampling = Sampling.of_policy(
            self.bundle.manifest.policy, steps=options.steps, guidance=options.guidance, frames=options.frames
        )
        self.chosen = choose_graphs(self.bundle, target, self.library, options.recipe, options.variant, options.graphs)

    def plan(self) -> Plan:
        """The whole plan, without advice."""
        graphs = tuple(self.graph(planned) for planned in self.chosen)
        memory = plan_memory(self.bundle, self.target, graphs, branches=self.sampling.branches)
        stages = {graph.graph: graph.stage for graph in graphs if graph.stage is not None}
        tick = None
        if len(stages) == len(graphs):
            tick = plan_tick(self.bundle, stages, self.forward, self.sampling, others=True)
        model = self.bundle.manifest.model
        library = self.library
        version = f" {library.version}" if library.version else ""
        return Plan(
            model=f"{model.get('family')} {model.get('variant')}",
            shape_set=str(self.bundle.manifest.shape_set.get("name")),
            target=self.target.id,
            target_name=self.target.name,
            recipe=self.options.recipe,
            library=f"{library.name}{version} ({library.release})",
            graphs=graphs,
            memory=memory,
            build=plan_build(self.bundle, self.target, library, graphs),
            tick=tick,
            advice=(),
            notes=(
                *_notes(self.target, memory.needed_bytes, memory.available_bytes),
                *filter(None, (borrowed(self.target.architecture) if tick is not None else None,)),
                *lacking_releases(self.chosen, self.bundle, self.target, library),
            ),
        )

    def graph(self, planned: PlannedGraph) -> GraphPlan:
        """One graph."""
        entry = planned.entry
        host = self.target.compute_capability is None
        sizes = self.figures.sizes(planned.graph, planned.variant, planned.applied, host=host)
        dialect, opset = planned.dialect, planned.opset
        if planned.applied is not None or planned.lacking is not None:
            opset = quantized_opset(opset, dialect, entry.dtype, sizes.schemes)
        has_weights = planned.graph not in WEIGHTLESS_GRAPHS
        candidate = Candidate(dialect, entry.dtype, opset, sizes.schemes, has_weights)
        legality = judge(self.target, self.library, candidate)
        engine, build_peak = build_bytes(sizes, self.library)
        fused = self.library.row is not None
        workspace = int(WORKSPACE.value or 0) if fused else 0
        peak = sizes.fused_peak if fused else sizes.unfused_peak
        work = self._work(planned)
        stage, untimed = self._time(work)
        return GraphPlan(
            graph=planned.graph,
            variant=planned.variant,
            applied_recipe=planned.applied.id if planned.applied is not None and sizes.schemes else None,
            dialect=dialect,
            dtype=entry.dtype,
            opset=opset,
            schemes=tuple(scheme.id for scheme in sizes.schemes),
            reasons=legality.reasons,
            cautions=(*_lacking(planned), *legality.cautions),
            weight_bytes=sizes.weight_bytes,
            engine_bytes=engine,
            activation_bytes=peak.bytes + workspace,
            unfused_activation_bytes=sizes.unfused_peak.bytes + workspace,
            activation_peak_at=peak.node,
            flops=work.flops,
            moved_bytes=work.bytes,
            stage=stage,
            untimed=untimed,
            build_peak_bytes=build_peak,
        )

    def forward(self, frames: Optional[int]) -> Stage:
        """One run of gen_step at other frames."""
        planned = next(entry for entry in self.chosen if entry.graph == "gen_step")
        work = self.figures.work(
            planned.graph, planned.variant, planned.applied, frames=frames, und_len=self.options.und_len
        )
        return self._predicted(work)

    def ideal_s(self, planned: PlannedGraph) -> float:
        """Time of one run if every nominal rate were reached in full: no software is faster.

        Raises:
            UsageError: the catalogue lacks a rate of the target.
        """
        return predict(_without_small_fp32(self._work(planned), self.target), self.target, IDEAL).time_s

    def _work(self, planned: PlannedGraph) -> Work:
        frames = self.options.frames if planned.graph == "gen_step" else None
        und_len = self.options.und_len if planned.graph != "vae_encoder" else None
        return self.figures.work(planned.graph, planned.variant, planned.applied, frames=frames, und_len=und_len)

    def _time(self, work: Work) -> tuple[Optional[Stage], Optional[str]]:
        try:
            return self._predicted(work), None
        except MotedgeError as error:
            return None, error.what

    def _predicted(self, work: Work) -> Stage:
        time = predict(_without_small_fp32(work, self.target), self.target)
        return Stage(time.time_s, time.low_s, time.high_s, time.bound, time.flops_s, time.bytes_s)


def _lacking(planned: PlannedGraph) -> list[Reason]:
    if planned.lacking is None:
        return []
    wanted = exported_variant(planned.lacking, planned.entry.dtype)
    what = f"the bundle lacks {wanted}, planned from {planned.variant}, which has weights of the same size"
    return [Reason(what, export_command(wanted))]


def _without_small_fp32(work: Work, target: Target) -> Work:
    """The work with fp32 products as mere traffic, where their rate is not known and they are next to nothing.

    The timestep's MLP multiplies one row in fp32, whatever the graph's type. A device whose fp32 rate nobody published
    should not be without a time for that.
    """
    rate = target.dense_tflops.get("fp32")
    small = sum(operator.flops for operator in work.operators if operator.type == "fp32")
    if (rate is not None and rate.value) or not small or small > _SMALL_SHARE * work.flops:
        return work
    return Work(
        tuple(
            dataclasses.replace(operator, kind="elementwise") if operator.type == "fp32" else operator
            for operator in work.operators
        )
    )


def _notes(target: Target, needed: int, available: Optional[int]) -> list[str]:
    found = []
    if available is None:
        found.append("the catalogue does not know this machine's memory: motedge doctor says what it has")
    elif needed <= available and needed > (1 - TIGHT_SHARE) * available:
        left = 100 * (available - needed) / available
        found.append(
            f"tight: {left:.1f} % of what the system leaves stays free, and that figure is {target.available_gb.mark}"
        )
    if UNVERIFIED in (target.capability.mark, target.bandwidth_gbps.mark):
        found.append(f"figures of {target.name} are not verified: {target.note or target.bandwidth_gbps.source}")
    if not target.unified_memory and target.engine == TENSORRT_RTX:
        found.append("engines are finished for the GPU when they are first loaded, which takes time once")
    return found


@dataclass(frozen=True)
class TargetPlan:
    """One target of the catalogue beside the others."""

    target: Target
    # None: no plan can be made, for the reason given
    plan: Optional[Plan]
    reason: str = ""


def plan_all(bundle: Bundle, options: PlanOptions) -> list[TargetPlan]:
    """Every target of the catalogue, graphs read once; what fails for one target alone is its reason.

    Raises:
        MissingPackageError: the onnx package is not installed.
        UsageError: an unknown recipe.
        BundleError: a graph is damaged.
        ContractError: frames or a prompt length outside the profile.
    """
    figures = GraphFigures(bundle)
    found: list[TargetPlan] = []
    failures: list[MotedgeError] = []
    for target in targets().values():
        try:
            plan = make_plan(bundle, target, options=options, figures=figures, advise=False)
        except (MissingPackageError, ContractError):
            raise
        except MotedgeError as error:
            failures.append(error)
            got = "" if error.got is None else f" (it has {error.got})"
            found.append(TargetPlan(target, None, f"{error.what}{got}"))
        else:
            found.append(TargetPlan(target, plan))
    if failures and len(failures) == len(found):
        # Not one target: it is the request or the bundle
        raise failures[0]
    return found
