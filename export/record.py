"""Which samples a bundle gets, and recording them: one per graph, and one whole tick where it can be afforded."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Bundle, Manifest
from motedge.export.graphs import GRAPHS
from motedge.export.journal import Journal
from motedge.export.plan import ExportPlan, make_plan
from motedge.export.reasoner_graphs import UND, VISION_ENCODER
from motedge.export.samples import PROMPT_TOKENS, SEED, SampleScene, record_graph, write_sample
from motedge.export.variants import REFERENCE
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Array
from motedge.runtime.policy.embodiments import load_embodiments
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.tables import Tables
from motedge.runtime.tick import OPTIONAL_SETTINGS, run_tick

MODES = ("auto", "graphs", "none")
TICK = "tick"
SAMPLED = (*GRAPHS, UND.name, VISION_ENCODER.name)
UNCOND_TOKENS = 7
# A reference tick on a CPU beyond this takes minutes, and no device needs it to trust its graphs
TICK_BUDGET_FLOP = 4e12
# Activations and copies beside the fp32 weights of the largest module
_ACTIVATION_FACTOR = 1.3
_log = logging.getLogger(__name__)


def record_samples(plan: ExportPlan, journal: Journal, manifest: Manifest, mode: str) -> dict[str, Any]:
    """Records what is missing; returns the manifest's samples, absent ones with their reason."""
    scene = SampleScene(plan.checkpoint, plan.shapes, Tables.open(Bundle(journal.root, manifest)))
    weights = _reference_bytes(plan)
    # Those of graphs that this export leaves as they are
    samples: dict[str, Any] = dict(journal.previous.samples) if journal.previous else {}
    for name, size in weights.items():
        reason = "left out: --samples none" if mode == "none" else _too_large(size)
        if reason is None and name == "gen_step" and "none" in samples["und_prefill"]:
            reason = "it takes K and V from the sample of und_prefill, which is absent"
        file = f"samples/{name}.npz"
        if reason is None:
            write = functools.partial(_write_graph_sample, scene, journal, name)
            journal.make(file, "samples", [SEED], write)
        samples[name] = _entry(file, reason, journal)
    file = f"samples/{TICK}.npz"
    reason = _no_tick(plan, weights, mode)
    if reason is None:
        settings = _tick_settings(manifest)
        journal.make(file, "samples", settings, lambda path: write_sample(path, _record_tick(scene, settings)))
    samples[TICK] = _entry(file, reason, journal)
    for name, entry in samples.items():
        if "none" in entry and mode != "none":
            _log.warning("no sample of %s: %s", name, entry["none"])
    return samples


def _entry(file: str, reason: str | None, journal: Journal) -> dict[str, Any]:
    # A sample that an earlier export recorded stays, whatever this one leaves out
    if reason and file not in journal.bundle_files():
        return {"none": reason}
    return {"file": file, "reference": f"torch {REFERENCE.dtype}"}


def _write_graph_sample(scene: SampleScene, journal: Journal, graph: str, path: Path) -> None:
    und_kv = None
    if graph == "gen_step":
        with np.load(journal.root / "samples/und_prefill.npz") as arrays:
            und_kv = arrays["out.und_kv"]
    write_sample(path, record_graph(scene, graph, und_kv))


def _record_tick(scene: SampleScene, settings: dict[str, Any]) -> dict[str, Array]:
    config, shapes = scene.checkpoint.config, scene.shapes
    vision_noisy, action_noisy = scene.masks(shapes.latent_frames, shapes.actions)
    state = np.zeros((shapes.actions, config.action_dim), np.float32)
    if settings["action_start_offset"] == 0:
        state[0, : settings["raw_dim"]] = np.linspace(-1, 1, settings["raw_dim"], dtype=np.float32)
    else:
        action_noisy[:] = 1.0
    inputs: dict[str, Array] = {
        "in.image": scene.image(),
        "in.action_clean": state,
        "in.action_noisy": action_noisy,
        "in.vision_noisy": vision_noisy,
        "in.cond_tokens": scene.tokens(PROMPT_TOKENS),
        "in.uncond_tokens": scene.tokens(UNCOND_TOKENS, offset=1),
    }
    loop = DenoiseLoop(scene.engine("und_prefill"), scene.engine("gen_step"), scene.tables, config.to_dict())
    try:
        outputs = run_tick(loop, scene.engine("vae_encoder"), inputs, settings)
    finally:
        loop.close()
    return {**inputs, "settings": np.array(json.dumps(settings)), **outputs}


def _tick_settings(manifest: Manifest) -> dict[str, Any]:
    config = manifest.model["config"]
    names = ("steps", "shift", "guidance", "guidance_interval", "fps", *OPTIONAL_SETTINGS)
    sampler = {name: manifest.policy[name] for name in names if name in manifest.policy}
    domain, raw_dim, offset = 8, 8, 0
    robot = load_embodiments().get(str(manifest.policy.get("embodiment")))
    if robot is not None and robot.protocol is not None and robot.raw_dim is not None:
        domain, raw_dim, offset = robot.domain_id, robot.raw_dim, 1 - find_protocol(robot).state_rows
    domain = min(domain, config["num_embodiment_domains"] - 1)
    return {
        **sampler,
        "seed": SEED % 2**31,
        "action_start_offset": offset,
        "domain_id": domain,
        "raw_dim": min(raw_dim, config["action_dim"]),
    }


def _no_tick(plan: ExportPlan, weights: Mapping[str, int], mode: str) -> str | None:
    if mode != "auto":
        return f"left out: --samples {mode}"
    if plan.shapes.actions < 2 or plan.shapes.latent_frames < 2:
        return "a tick is a state and its actions, and the shape set's request has none"
    tokens = plan.shapes.latent_frames * plan.shapes.tokens_per_frame + plan.shapes.actions
    parameters = weights["gen_step"] / 4
    forwards = 2 * 4
    if 2 * parameters * tokens * forwards > TICK_BUDGET_FLOP:
        return "a whole tick in torch fp32 would take minutes here; the graphs have their own samples"
    return _too_large(sum(weights[name] for name in GRAPHS))


def _reference_bytes(plan: ExportPlan) -> dict[str, int]:
    """Weights of the fp32 torch module of every graph, in bytes; the export itself may be of other variants."""
    reference = make_plan(plan.checkpoint, plan.shapes, [REFERENCE], plan.extras)
    sampled = [graph for graph in reference.graphs if graph.spec.name in SAMPLED]
    return {graph.spec.name: sum(slot.spec.bytes for slot in graph.slots[REFERENCE]) for graph in sampled}


def _too_large(weight_bytes: int) -> str | None:
    needed, free = int(weight_bytes * _ACTIVATION_FACTOR), available_memory()
    if needed <= free:
        return None
    _log.info("%.1f GB of memory are free", free / 1e9)
    # Without the free amount, which differs at every run and would make the manifest differ too
    return f"the fp32 reference needs {needed / 1e9:.1f} GB of memory, more than was free on the exporting machine"


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping (Linux: MemAvailable)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
