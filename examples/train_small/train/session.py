"""One training from recordings to a checkpoint: the VAE, then the towers on its latents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.train_small.data.dataset import RoadData
from examples.train_small.model.checkpoint import rounded, with_statistics, write_small
from examples.train_small.model.preset import small_preset
from examples.train_small.model.towers import Towers
from examples.train_small.model.vae import Vae
from examples.train_small.road.expert import RATE_HZ, ROWS
from examples.train_small.train.curves import write_curves
from examples.train_small.train.drives import Drives
from examples.train_small.train.evaluate import plan_errors
from examples.train_small.train.loop import LoopSettings, TrainingLoop
from examples.train_small.train.made import made_with
from examples.train_small.train.texts import EMBODIMENT, make_prompts, open_tokenizer
from examples.train_small.train.tower_stage import TowerBatches
from examples.train_small.train.vae_stage import VaeBatches, encode_all, latent_statistics
from motedge.checkpoint.policy_metadata import PolicyMetadata
from motedge.checkpoint.staging import staged_folder
from motedge.checkpoint.synthetic_tokenizer import write_tokenizer
from motedge.errors import DataError
from motedge.files import write_json

# How plans are looked at in the end: name -> sampler
_LOOKS: dict[str, dict[str, Any]] = {
    "4 steps": {},
    "2 steps": {"steps": 2},
    "1 step": {"steps": 1},
    "4 steps, guidance 3": {"guidance": 3.0},
}


@dataclass(frozen=True)
class Sizes:
    """Of batches and data."""

    # Short clips a step of the VAE; of long ones a quarter as many
    vae: int
    # Samples a step of the towers
    towers: int
    # Of the clips that begin at each frame, every so many are taken
    every: int


class Session:
    """Holds what is trained. `run` goes on where an earlier run of the same settings was interrupted."""

    def __init__(
        self,
        *,
        work: Path,
        train: RoadData,
        held_out: RoadData,
        vae: LoopSettings,
        towers: LoopSettings,
        sizes: Sizes,
        device: torch.device,
    ) -> None:
        """Opens what is there.

        Raises:
            DataError: roads are in both sets of recordings, or a state is damaged or of other settings.
        """
        shared = set(train.seeds.tolist()) & set(held_out.seeds.tolist())
        if shared:
            raise DataError(
                "roads that are trained on are also held out", expected="no seed in both", got=sorted(shared)[:5]
            )
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.sizes, self.device = work, sizes, device
        self.preset = small_preset()
        self.train = Drives(train, device, every=sizes.every)
        self.held_out = Drives(held_out, device, every=sizes.every)
        torch.manual_seed(vae.seed)
        self.vae = Vae(self.preset.vae).to(device)
        self.towers = Towers(self.preset.transformer).to(device)
        self.loops = {
            "vae": TrainingLoop("vae", self.vae, work, vae),
            "towers": TrainingLoop("towers", self.towers, work, towers),
        }
        write_tokenizer(work / "tokenizer", "edge", self.preset.transformer.vocab_size)
        tokenizer = open_tokenizer(work / "tokenizer")
        self.prompts = make_prompts(tokenizer, self.preset.transformer).to(device)
        self.seed, self.about = vae.seed, {"frames": len(train.frames), "episodes": len(train.seeds)}

    def run(self) -> None:
        """Trains both parts.

        Raises:
            DataError: a loss became NaN or infinite.
        """
        batches = VaeBatches(self.vae, self.train, self.sizes.vae, max(1, self.sizes.vae // 4))
        self.loops["vae"].run(batches.draw, batches.losses)
        self._take_average("vae", self.vae)
        latents = encode_all(self.vae, self.train)
        self.preset = with_statistics(self.preset, *latent_statistics(latents))
        latents = self._normalised(latents)
        tower_batches = TowerBatches(self.towers, self.prompts, self.train, latents, self.sizes.towers)
        self.loops["towers"].run(tower_batches.draw, tower_batches.losses)

    def write(self, out: Path) -> dict[str, Any]:
        """Writes the checkpoint with averaged weights, and looks at it; returns what training.json says.

        Raises:
            UsageError: the folder exists.
            DataError: a weight is NaN or infinite.
        """
        made = {"batches": asdict(self.sizes), **made_with(self.loops, self.device)}
        report = {"data": self.about, "made": made, "held_out": self._look()}
        policy = PolicyMetadata(action_chunk_size=ROWS, conditioning_fps=float(RATE_HZ), domain_name=EMBODIMENT)
        weights = self.loops["towers"].average, self.loops["vae"].average
        with staged_folder(out) as root:
            write_small(root, self.preset, *weights, policy, seed=self.seed)
            curves = {name: loop.curve for name, loop in self.loops.items()}
            write_json(root / "training.json", {"schema": "train_small.training/v1", **report, "curves": curves})
            write_curves(root / "curves.svg", curves)
        return report

    def _look(self) -> dict[str, Any]:
        self._take_average("towers", self.towers)
        latents = self._normalised(encode_all(self.vae, self.held_out))
        found = {
            name: plan_errors(self.towers, self.prompts, self.held_out, latents, **sampler)
            for name, sampler in _LOOKS.items()
        }
        # As the checkpoint will have them
        self._put(self.vae, rounded(self.loops["vae"].average))
        self._put(self.towers, rounded(self.loops["towers"].average))
        latents = self._normalised(encode_all(self.vae, self.held_out))
        found["4 steps, bf16 weights"] = plan_errors(self.towers, self.prompts, self.held_out, latents)
        return found

    def _normalised(self, latents: Tensor) -> Tensor:
        shape = (1, 1, -1, 1, 1, 1)
        mean, std = (
            torch.tensor(values, device=latents.device).view(shape)
            for values in (self.preset.vae.latents_mean, self.preset.vae.latents_std)
        )
        return torch.stack([((part.float() - mean[0]) / std[0]).half() for part in latents])

    def _take_average(self, name: str, module: torch.nn.Module) -> None:
        self._put(module, self.loops[name].average)

    @staticmethod
    @torch.no_grad()
    def _put(module: torch.nn.Module, values: dict[str, Tensor]) -> None:
        for key, parameter in module.named_parameters():
            parameter.copy_(values[key])
