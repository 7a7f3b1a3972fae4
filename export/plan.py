"""What an export will write: files, sizes, weights and their places. Nothing is read but headers, nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from motedge.bundle import Contract
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.errors import ExportError
from motedge.export.contracts import solver_step
from motedge.export.extras import extra_graphs
from motedge.export.graphs import GRAPHS, GraphSpec
from motedge.export.reasoner_graphs import VISION_ENCODER, vision_of
from motedge.export.shapes import ShapeSet
from motedge.export.sound_graphs import GEN_STEP_SOUND
from motedge.export.tables import TableSpec, table_specs, vision_tables
from motedge.export.variants import VariantSpec
from motedge.export.weights import DTYPES, WeightSlot, place_weights, plan_weights

GRAPH_FILE_BYTES = 8_000_000  # generous: a 64-layer primitive graph without its weights


@dataclass(frozen=True)
class GraphPlan:
    """One graph of the bundle."""

    spec: GraphSpec
    contract: Contract
    # Variant -> where its weights lie
    slots: dict[VariantSpec, list[WeightSlot]] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, which variants and graphs may share."""

    # Holds the tensors
    store: TensorStore
    slots: list[WeightSlot]

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return max(slot.offset + slot.spec.bytes for slot in self.slots)


@dataclass(frozen=True)
class ExportPlan:
    """Everything an export will write."""

    checkpoint: Checkpoint
    shapes: ShapeSet
    graphs: list[GraphPlan]
    # Contract of solver_step, which has no weights and one variant
    solver: Contract
    tables: list[TableSpec]
    # Groups of graphs beside the policy's
    extras: tuple[str, ...] = ()

    @property
    def weight_files(self) -> dict[str, WeightFile]:
        """Weight file -> its slots; variants and graphs that share a file have the same slots in it."""
        stores: dict[str, TensorStore] = {}
        files: dict[str, dict[str, WeightSlot]] = {}
        for graph in self.graphs:
            for slot in (slot for slots in graph.slots.values() for slot in slots):
                stores.setdefault(slot.file, graph.spec.store(self.checkpoint))
                known = files.setdefault(slot.file, {}).setdefault(slot.spec.name, slot)
                if known != slot:
                    raise ExportError(f"{slot.spec.name} lies differently in two graphs", expected=known, got=slot)
        return {name: WeightFile(stores[name], list(slots.values())) for name, slots in files.items()}

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Size of every weight file, by name."""
        return {name: file.bytes for name, file in self.weight_files.items()}

    @property
    def table_bytes(self) -> dict[str, int]:
        """Size of every table, by name."""
        return {t.name: t.store(self.checkpoint).entry(t.key).size if t.key else 4 * t.shape[0] for t in self.tables}

    @property
    def total_bytes(self) -> int:
        """Disk space that a fresh export takes at most."""
        graphs = GRAPH_FILE_BYTES * (1 + sum(len(g.slots) for g in self.graphs))
        return sum(self.weight_bytes.values()) + sum(self.table_bytes.values()) + graphs


def make_plan(
    checkpoint: Checkpoint, shapes: ShapeSet, variants: Sequence[VariantSpec], extras: Sequence[str] = ()
) -> ExportPlan:
    """Plans the export of every graph in every variant.

    Args:
        checkpoint: the model.
        shapes: the sizes of its graphs.
        variants: of each graph.
        extras: groups of `motedge.export.extras.EXTRAS` whose graphs are wanted beside the policy's.

    Raises:
        ExportError: the model has no action heads, which a policy needs.
        UsageError: there is no such group.
    """
    config = checkpoint.config
    if not config.action_gen:
        raise ExportError(
            "this checkpoint generates no actions",
            expected="action_gen true in transformer/config.json",
            got=config.action_gen,
            why="the policy's graphs take and return action rows",
            fix="take Cosmos3-Edge, -Nano, -Super or a policy checkpoint",
        )
    graphs = []
    for spec in (*GRAPHS.values(), *extra_graphs(extras)):
        plan = GraphPlan(spec, spec.contract_of(checkpoint, shapes))
        for variant in variants:
            plan.slots[variant] = _slots(spec, checkpoint, shapes, variant)
        graphs.append(plan)
    tables = table_specs(config)
    if any(graph.spec is VISION_ENCODER for graph in graphs):
        tables += vision_tables(vision_of(checkpoint))
    sounds = [graph.contract for graph in graphs if graph.spec is GEN_STEP_SOUND]
    most_sound = (sounds[0].sizes["Q"], sounds[0].profile["J"][2]) if sounds else (0, 0)
    solver = solver_step(config, shapes, most_sound)
    return ExportPlan(checkpoint, shapes, graphs, solver, tables, tuple(extras))


def _slots(spec: GraphSpec, checkpoint: Checkpoint, shapes: ShapeSet, variant: VariantSpec) -> list[WeightSlot]:
    own, dtype = plan_weights(spec.empty_module(checkpoint, shapes, variant)), DTYPES[variant.dtype]
    if spec.shares is None:
        return place_weights(spec.name, dtype, own)
    lent = plan_weights(spec.shares.empty_module(checkpoint, shapes, variant))
    names, known = {weight.name for weight in own}, {weight.name for weight in lent}
    shared = [slot for slot in place_weights(spec.shares.name, dtype, lent) if slot.spec.name in names]
    return [*shared, *place_weights(spec.name, dtype, [weight for weight in own if weight.name not in known])]
