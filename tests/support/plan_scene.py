"""Plans made by hand, and a policy's bundle of a few numbers: what tests of planning vary."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, Optional

from motedge.bundle import Contract
from motedge.bundle.contract import TensorSpec
from motedge.bundle.manifest import FileEntry
from motedge.targets.catalog import Figure, Target, load_target
from motedge.targets.plan.model import (
    DEVICE,
    HOST,
    Advice,
    BuildPlan,
    GraphPlan,
    MemoryItem,
    MemoryPlan,
    OperatingPoint,
    Plan,
    Stage,
    TickPlan,
)

GB = 1_000_000_000
POLICY: dict[str, Any] = {
    "steps": 4,
    "shift": 5.0,
    "guidance": 3.0,
    "guidance_interval": [960.0, 1001.0],
    "fps": 15.0,
    "chunk": 32,
}


def stage(time_s: float, error: float = 1.25) -> Stage:
    """A predicted time with an error to both sides."""
    return Stage(time_s, time_s / error, time_s * error, "compute", time_s, time_s / 2)


def graph_plan(name: str, weights: int, activations: int = 100_000_000, **changed: Any) -> GraphPlan:
    """One graph, legal and timed."""
    made = GraphPlan(
        graph=name,
        variant="fused-bf16",
        applied_recipe=None,
        dialect="fused",
        dtype="bf16",
        opset=23,
        schemes=(),
        reasons=(),
        cautions=(),
        weight_bytes=weights,
        engine_bytes=weights,
        activation_bytes=activations,
        unfused_activation_bytes=2 * activations,
        activation_peak_at="node",
        flops=1e12,
        moved_bytes=1e9,
        stage=stage(0.1),
        untimed=None,
        build_peak_bytes=2 * weights,
    )
    return dataclasses.replace(made, **changed)


def make(**changed: Any) -> Plan:
    """A plan that passes: 5 of 7 GB, a tick of 0.6 s in 2.133 s."""
    items = (
        MemoryItem("gen_step engine", 3 * GB, DEVICE, "weights as stored"),
        MemoryItem("und_prefill engine", 1 * GB, DEVICE, "weights as stored"),
        MemoryItem("runtime on the host", GB // 2, HOST, "measured"),
    )
    point = OperatingPoint("as asked", 4, 3.0, (960.0, 1001.0), 9, 5, 0.6, 0.5, 0.75, "yes", "")
    made = Plan(
        model="edge policy-droid",
        shape_set="droid",
        target="jetson-orin-nano-8gb",
        target_name="Jetson Orin Nano 8 GB",
        recipe=None,
        library="tensorrt 10.16 (JetPack 7.2.2)",
        graphs=(graph_plan("gen_step", 3 * GB), graph_plan("und_prefill", GB)),
        memory=MemoryPlan(items, 5 * GB, 5 * GB, 7 * GB, "derived", True),
        build=BuildPlan("on the device", 6 * GB, "gen_step", 7 * GB, True, 4 * GB, 8 * GB, "fitted"),
        tick=TickPlan((point,), 0.01, 0.04, 0.2, 32 / 15, 15.0, 32),
        advice=(),
        notes=(),
    )
    return dataclasses.replace(made, **changed)


def refused(needed: int = 9 * GB) -> Plan:
    """The same, too large, with one way out."""
    plan = make(advice=(Advice("recipe int4-awq", "fits: needs 3 GB", True),))
    return dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, needed_bytes=needed, fits=False))


def device(name: str, available_gb: Optional[float]) -> Target:
    """A device of the catalogue with another memory."""
    mark = "unknown" if available_gb is None else "derived"
    return dataclasses.replace(load_target(name), available_gb=Figure(available_gb, mark, "of a test"))


def policy_bundle(**policy: Any) -> Any:
    """What planning memory and time asks of a bundle: contracts, tables, the policy."""
    kept = TensorSpec("und_kv", ("L", 2, "K", "U", "D"), "graph", "K and V")
    state = [TensorSpec("vision", ("C", "T", "h", "w"), "fp32", "x"), TensorSpec("action", ("A", "Z"), "fp32", "x")]
    angles = [TensorSpec(name, ("N", "R"), "fp32", "x") for name in ("cos", "sin")]
    sizes = {"L": 2, "K": 4, "D": 8, "C": 3, "h": 5, "w": 6, "Z": 7, "R": 4}
    step = Contract(
        "gen_step",
        (*state, *angles, kept),
        (TensorSpec("action_velocity", ("A", "Z"), "fp32", "x"),),
        sizes,
        {"T": (1, 2, 3), "A": (2, 9, 17), "N": (2, 69, 107), "U": (2, 16, 64)},
    )
    prefill = Contract(
        "und_prefill",
        (TensorSpec("embeddings", ("S", "H"), "fp32", "x"),),
        (TensorSpec("und_kv", ("L", 2, "K", "S", "D"), "graph", "x"),),
        {**sizes, "H": 32},
        {"S": (2, 16, 64)},
    )
    contracts = {"gen_step": step, "und_prefill": prefill}
    table = {"file": "tables/e.bin", "dtype": "bf16", "shape": [100_000, 32]}
    manifest = SimpleNamespace(
        graphs=contracts,
        policy={**POLICY, **policy},
        shape_set={"canvas": [10, 20], "latent": [2, 5, 6]},
        tables={"embed_tokens": table},
        files={"tables/e.bin": FileEntry("", 6_400_000, "table")},
    )
    return SimpleNamespace(manifest=manifest, contract=contracts.__getitem__)
