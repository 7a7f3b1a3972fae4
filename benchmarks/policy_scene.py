"""What `policy_tick.py` measures on: a checkpoint of random weights, its bundle, one observation, and both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers_policy import DiffusersPolicy

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import CheckpointError
from motedge.export.graphs import GRAPHS
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import ShapeSet, load_shape_set
from motedge.export.torch_engine import TorchEngine
from motedge.export.variants import REFERENCE, VariantSpec
from motedge.runtime.backends import open_engine
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Engine, EngineOptions
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.policy import Observation, Policy, load_policy
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import HostTick
from motedge.runtime.policy.views import COMPOSED_SIZE, view_regions
from motedge.runtime.request import SamplerSettings
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer

VARIANT = "policy-droid"
INSTRUCTION = "Put the red cup on the plate."
# A pose of the Franka arm in the middle of its workspace, rad; gripper as fraction closed
JOINTS_RAD = (0.0, -0.63, 0.0, -2.51, 0.0, 1.88, 0.0)
GRIPPER = 0.1


@dataclass(frozen=True)
class Side:
    """A policy of ours over one kind of engine."""

    policy: Policy
    # Its loop, whose prompts a measurement forgets on purpose
    loop: DenoiseLoop


@dataclass(frozen=True)
class Scene:
    """One request, and who answers it."""

    checkpoint: Path
    bundle: Path
    shapes: ShapeSet
    # Our loop on the bundle's graphs, in onnxruntime
    graphs: Side
    # The same loop on our modules in torch eager, with torch's own attention
    modules: Side
    peer: DiffusersPolicy
    observation: Observation
    threads: int
    seed: int

    @property
    def policy(self) -> Policy:
        """The policy that the bundle is for."""
        return self.graphs.policy

    @property
    def always(self) -> SamplerSettings:
        """The policy's settings with guidance at every step, which is what diffusers does."""
        return replace(self.policy.settings, guidance_interval=None)

    def load(self) -> Policy:
        """The bundle's policy as a user loads it, with nothing kept from earlier ticks."""
        # This process or a former one wrote the files, so their sizes are check enough
        return load_policy(
            self.bundle,
            variant=REFERENCE.id,
            threads=self.threads,
            seed=self.seed,
            deterministic_seed=True,
            check="size",
        )

    def close(self) -> None:
        """Frees the engines."""
        for side in (self.graphs, self.modules):
            side.policy.close()


def make_scene(work: Path, *, family: str, size: str, shape_set: str, threads: int, seed: int) -> Scene:
    """Makes checkpoint and bundle in `work`, or takes those that are there, and opens all sides.

    Raises:
        CheckpointError: `work` holds the checkpoint of another family, size or seed.
        BundleError: its bundle was exported for another shape set.
    """
    torch.set_num_threads(threads)
    shapes = load_shape_set(shape_set)
    checkpoint, folder = work / "checkpoint", work / "bundle"
    if not checkpoint.exists():
        make_checkpoint(checkpoint, family, VARIANT, size, seed)
    opened = Checkpoint.open(checkpoint)
    _require_same(opened, family, size, seed)
    export_bundle(opened, folder, ExportOptions(shapes, [REFERENCE], samples="none"))
    bundle = Bundle.open(folder)
    graphs = _assemble(bundle, {name: open_graph(bundle, name, threads) for name in GRAPHS}, seed)
    modules = {name: torch_engine(opened, shapes, name, "fused") for name in GRAPHS}
    return Scene(
        checkpoint=checkpoint,
        bundle=folder,
        shapes=shapes,
        graphs=graphs,
        modules=_assemble(bundle, modules, seed),
        peer=DiffusersPolicy(checkpoint, graphs.policy, seed),
        observation=Observation(JOINTS_RAD, GRIPPER, INSTRUCTION, image=draw_image(seed), source="drawn"),
        threads=threads,
        seed=seed,
    )


def open_graph(bundle: Bundle, name: str, threads: int) -> Engine:
    """A graph in onnxruntime."""
    options = EngineOptions(threads=threads, check_content=False)
    return open_engine(bundle, name, variant=REFERENCE.id, options=options)


def torch_engine(checkpoint: Checkpoint, shapes: ShapeSet, name: str, dialect: str) -> Engine:
    """A graph's module in torch eager, fp32; "fused" uses torch's own attention, "primitive" two products."""
    spec = GRAPHS[name]
    module = spec.module(checkpoint, shapes, VariantSpec(dialect, "fp32"))
    return TorchEngine(module, spec.contract(checkpoint.config, shapes))


def _assemble(bundle: Bundle, engines: Mapping[str, Engine], seed: int) -> Side:
    """A policy over given engines, put together as `load_policy` does it."""
    manifest, seeds = bundle.manifest, RequestSeeds(seed, fixed=True)
    und, gen, vae = engines["und_prefill"], engines["gen_step"], engines["vae_encoder"]
    noise = NoiseAhead(next_seed=lambda _: seeds.peek())
    loop = DenoiseLoop(und, gen, Tables.open(bundle), manifest.model["config"], noise=noise)
    robot = find_embodiment(manifest.policy["embodiment"])
    protocol = find_protocol(robot)
    shape = PolicyShape.from_manifest(manifest.shape_set, manifest.policy, protocol.state_rows)
    policy = Policy(
        tick=HostTick(vae, loop, shape, protocol, (und, gen)),
        tokenizer=PromptTokenizer.open(bundle),
        gen_contract=gen.contract,
        shape=shape,
        embodiment=robot,
        settings=sampler_settings(manifest.policy, {}),
        prompt_format=manifest.policy["prompt_format"],
        seeds=seeds,
    )
    return Side(policy, loop)


def describe_request(scene: Scene) -> dict[str, Any]:
    """What was asked, and of which model."""
    shape, settings, start = scene.policy.shape, scene.policy.settings, scene.peer.start(scene.observation)
    provenance = Checkpoint.open(scene.checkpoint).provenance
    return {
        "model": {
            "family": provenance.family if provenance else None,
            "variant": VARIANT,
            "size": provenance.size if provenance else None,
            "weights": "random",
            "seed": scene.seed,
        },
        "graphs": REFERENCE.id,
        "shape_set": scene.shapes.name,
        "image": list(scene.policy.see(scene.observation)[0].shape),
        "canvas": list(shape.canvas),
        "clip_frames": shape.frames,
        "latent": list(shape.latent),
        "generator_tokens": start.conditional["sequence_length"] - start.conditional["und_len"],
        "prompt_tokens": {"conditional": start.conditional["und_len"], "unconditional": start.unconditional["und_len"]},
        "steps": settings.steps,
        "shift": settings.shift,
        "guidance": settings.guidance,
        "guidance_interval": settings.guidance_interval,
    }


def draw_image(seed: int) -> Image:
    """Three views of a table with boxes, composed as the DROID client does: uint8 [540, 640, 3]."""
    random = np.random.RandomState(seed)
    image = np.zeros((*COMPOSED_SIZE, 3), np.uint8)
    for rows, columns in view_regions().values():
        view = image[rows, columns]
        height, width = view.shape[:2]
        view[:] = np.linspace(90, 170, height)[:, None, None].astype(np.uint8)
        for _ in range(6):
            top, left = random.randint(height // 3, height - 20), random.randint(0, width - 40)
            view[top : top + random.randint(15, height // 3), left : left + random.randint(20, width // 4)] = (
                random.randint(0, 256, 3)
            )
    return image


def _require_same(checkpoint: Checkpoint, family: str, size: str, seed: int) -> None:
    made = checkpoint.provenance
    got = (made.family, made.variant, made.size, made.seed) if made else None
    if got != (family, VARIANT, size, seed):
        raise CheckpointError(
            f"{checkpoint.root} is another checkpoint than was asked for",
            expected=(family, VARIANT, size, seed),
            got=got,
            fix="give another --work folder, or remove this one",
        )
