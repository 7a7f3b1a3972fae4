"""Requests that a generator on a GPU must answer as the CPU does, and the CPU's answers in a file that travels.

    PYTHONPATH=.:tests/support python3 tests/support/generate_reference.py bundle BUNDLE    a tiny one, with all graphs
    PYTHONPATH=.:tests/support python3 tests/support/generate_reference.py answers BUNDLE OUT.npz

The answers run on Python 3.9; making the bundle needs torch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from motedge.files import sha256_file, write_json
from motedge.runtime.generate import GenerateRequest, Generator, load_generator

# The exact one, which every machine has
VARIANT = "primitive-fp32"
VARIANTS = "primitive-fp32,fused-fp16,primitive17-fp16,primitive17-fp32"
EXTRAS = ("vae-decoder", "vae-decoder-stream", "vae-encoder-clip", "vae-encoder-stream", "sound")
FRAMES, STEPS, SIZE = 9, 3, (80, 96)
CUBE, DOG = "A red cube on a table.", "A dog barks in the rain, seen from above."
LEVELS = (1.0, 0.6, 0.2)


@dataclass(frozen=True)
class Scene:
    """One request."""

    name: str
    mode: str
    # Of GenerateRequest, beside mode, prompt, seed and sampler
    given: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = CUBE
    seed: int = 1
    # Of SamplerSettings, where it differs from three steps with guidance 3
    changed: Mapping[str, Any] = field(default_factory=dict)
    # Whether the model samples as a distilled one
    distilled: bool = False
    # What `launch` begins with on TensorRT, once it is warm
    launch: str = "one CUDA graph"

    @property
    def sound(self) -> bool:
        """Whether it is one with sound."""
        return bool(self.given.get("sound"))

    def request(self) -> GenerateRequest:
        """What is asked."""
        sampler = {} if self.distilled else {"steps": STEPS, "guidance": 3.0, "shift": 5.0, **self.changed}
        return GenerateRequest(self.mode, self.prompt, seed=self.seed, sampler=sampler, **self.given)

    def ask(self, generator: Generator, watch: Any = None) -> Any:
        """What was made."""
        # As if the bundle's checkpoint were distilled: its weights are random in either case
        generator._distilled = LEVELS if self.distilled else None
        return generator.generate(self.request(), watch)


def picture(seed: int) -> Any:
    """Noise, uint8 [rows, columns, 3]."""
    return np.random.RandomState(seed).randint(0, 256, (*SIZE, 3)).astype(np.uint8)


CLIP = [picture(seed) for seed in range(FRAMES)]
ACTIONS = np.random.RandomState(5).uniform(-1, 1, (FRAMES - 1, 9)).astype(np.float32)
_VIDEO: Dict[str, Any] = {"frames": FRAMES}
_AV: Dict[str, Any] = {"embodiment": "av"}
_HOST = "step by step"
SCENES: Tuple[Scene, ...] = (
    Scene("an image", "text2image"),
    Scene("a video", "text2video", _VIDEO),
    Scene("another prompt", "text2video", _VIDEO, prompt=DOG),
    Scene("another seed", "text2video", _VIDEO, seed=2),
    Scene("a longer video", "text2video", {"frames": 17}),
    Scene("no guidance", "text2video", _VIDEO, changed={"guidance": 1.0}),
    Scene("guidance in an interval", "text2video", _VIDEO, changed={"guidance_interval": (300.0, 980.0)}),
    Scene("fixed step cache", "text2video", _VIDEO, changed={"step_cache": "every:2", "steps": 5}),
    Scene("SeaCache", "text2video", _VIDEO, changed={"step_cache": "sea:0.3", "steps": 5}, launch=_HOST),
    Scene("distilled", "text2image", distilled=True, launch=_HOST),
    Scene("from an image", "image2video", {**_VIDEO, "image": CLIP[0]}),
    Scene("from a video", "video2video", {"frames": 13, "video": CLIP}),
    Scene("forward dynamics", "forward_dynamics", {**_AV, "image": CLIP[0], "actions": ACTIONS}),
    Scene("inverse dynamics", "inverse_dynamics", {**_AV, "video": CLIP}),
    Scene("policy", "policy", {**_AV, **_VIDEO, "image": CLIP[0]}),
    Scene("sound", "text2video", {**_VIDEO, "sound": True}),
    Scene("sound from an image", "image2video", {**_VIDEO, "image": CLIP[0], "sound": True}, prompt=DOG),
    Scene("longer sound, no guidance", "text2video", {"frames": 17, "sound": True}, changed={"guidance": 1.0}),
)
BY_NAME: Dict[str, Scene] = {scene.name: scene for scene in SCENES}


def answer(generator: Generator, scene: Scene, made: Any = None) -> Dict[str, Any]:
    """Everything that a scene makes: latents, actions, sound, waveform, pictures as fp32 in 0 to 1."""
    made = scene.ask(generator) if made is None else made
    found = {"latents": made.latents, "actions": made.actions, "sound": made.sound}
    pictures = np.concatenate(list(generator.frames(made.latents))).astype(np.float32) / 255
    # Every other row and column is enough to compare, and travels
    found["pictures"] = pictures[:, ::2, ::2]
    if made.sound is not None:
        found["waveform"] = generator.waveform(made.sound)[0]
    found["forwards"] = np.array(made.counters.forwards)
    return {name: value for name, value in found.items() if value is not None}


def make_reference(bundle: Path) -> Dict[str, Any]:
    """ "scene/what" -> array, fp32, by onnxruntime on the CPU."""
    found: Dict[str, Any] = {}
    for sound in (False, True):
        with load_generator(bundle, variant=VARIANT, threads=1, sound=sound) as generator:
            for scene in SCENES:
                if scene.sound == sound:
                    found.update({f"{scene.name}/{what}": a for what, a in answer(generator, scene).items()})
    return found


def of_scene(reference: Mapping[str, Any], scene: Scene) -> Dict[str, Any]:
    """What the reference has of a scene."""
    start = f"{scene.name}/"
    return {name[len(start) :]: value for name, value in reference.items() if name.startswith(start)}


def distance(got: Any, expected: Any) -> float:
    """Relative L2; NaN where something is not finite, infinity where shapes differ."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        return float("inf")
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def closest_pair(reference: Mapping[str, Any]) -> float:
    """The smallest distance between the latents of two scenes: a tolerance must lie well below it."""
    values = [value for name, value in reference.items() if name.endswith("/latents")]
    found: List[float] = [distance(a, b) for i, a in enumerate(values) for b in values[:i]]
    return min(found)


def make_bundle(root: Path, variants: Optional[str] = None) -> None:
    """A tiny Nano with the graphs of videos and sound, in all variants that a GPU may run."""
    from tiny import MINI_MEDIA

    from motedge.checkpoint.make import make_checkpoint
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.variants import parse_variants

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "nano", "nano", "base", "tiny", seed=7)
        options = ExportOptions(MINI_MEDIA, parse_variants(variants or VARIANTS), "none", EXTRAS)
        export_bundle(Checkpoint.open(checkpoint), root, options)
    thin_table(root)


def thin_table(root: Path) -> None:
    """Zeros in the rows of the embedding table that no token has, 150 of 155 MB, so that the bundle travels packed."""
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    table = manifest["tables"]["embed_tokens"]
    tokenizer = json.loads((root / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
    rows = np.memmap(root / table["file"], np.uint16, "r+").reshape(table["shape"])
    unused = np.ones(len(rows), bool)
    unused[ids] = False
    rows[unused] = 0
    rows.flush()
    manifest["files"][table["file"]]["sha256"] = sha256_file(root / table["file"])
    write_json(root / "manifest.json", manifest)


def main() -> int:
    """Makes the bundle, or the answers."""
    if sys.argv[1] == "bundle":
        make_bundle(Path(sys.argv[2]))
        return 0
    reference = make_reference(Path(sys.argv[2]))
    np.savez_compressed(Path(sys.argv[3]), **reference)
    sys.stdout.write(f"{len(SCENES)} scenes, the closest two {closest_pair(reference):.4f} apart\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
