"""A tiny bundle with real forwards of its towers and ranges of every site: what quantization tests start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny import MINI_POLICY

from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.torch_engine import TorchEngine
from motedge.export.variants import parse_variants
from motedge.quant.calibration.observers import RangeObserver
from motedge.quant.calibration.result import SiteStatistics
from motedge.quant.datasets.dataset import Moment
from motedge.quant.parameters import SiteParameters
from motedge.quant.recipe import Recipe
from motedge.quant.replay import Forward, RequestReader, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.quant.sites import module_sites
from motedge.quant.towers import open_tower
from motedge.runtime.policy.observation import Observation

UND, GEN = "und_prefill", "gen_step"


def export_policy(checkpoint: Path, out: Path, variants: str = "all", samples: str = "none") -> Bundle:
    """A bundle on which a policy acts, small pictures."""
    export_bundle(Checkpoint.open(checkpoint), out, ExportOptions(MINI_POLICY, parse_variants(variants), samples))
    return Bundle.open(out)


def observation(seed: int = 0) -> Observation:
    """A smooth picture with a state, drawn from a seed."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:540, 0:640] / 540.0
    waves = [np.sin(random.uniform(3, 30) * x + random.uniform(3, 30) * y + phase) for phase in random.rand(3)]
    picture = np.stack(waves, axis=-1) * 90 + 128 + random.randint(-20, 20, (540, 640, 3))
    image = picture.clip(0, 255).astype(np.uint8)
    return Observation(random.uniform(-1, 1, 7), float(random.rand()), "put the cup down", image=image)


class MadeDataset:
    """A data set of `observation`s."""

    name, kind, notes = "made", "images", ()

    def __init__(self, count: int = 30, groups: int = 1) -> None:
        self.count, self.groups, self.read = count, groups, 0

    def moments(self) -> list[Moment]:
        return [Moment(str(group), index) for group in range(self.groups) for index in range(self.count)]

    def observation(self, moment: Moment) -> Observation:
        self.read += 1
        return observation(1000 * int(moment.group) + moment.index)

    def fingerprint(self) -> str:
        return f"made {self.count} {self.groups}"


@dataclass
class QuantScene:
    """Towers in torch, one request's forwards, ranges."""

    bundle: Bundle
    towers: Mapping[str, TorchEngine]
    forwards: list[Forward]
    prompts: list[tuple[np.ndarray, np.ndarray]]
    amax: Mapping[str, Mapping[str, torch.Tensor]]

    @classmethod
    def of(cls, bundle: Bundle) -> QuantScene:
        """Runs one observation through the bundle's towers."""
        towers = {graph: open_tower(bundle, graph) for graph in (UND, GEN, "vae_encoder")}
        reader = RequestReader(bundle, towers["vae_encoder"])
        requests = [reader.read(observation(), 1)]
        observers = {g: RangeObserver(g, towers[g].module, module_sites(towers[g].module)) for g in (UND, GEN)}
        prompts = encode_prompts(bundle, towers[UND], requests, reader.settings)
        forwards: list[Forward] = []
        tap = TappedEngine(towers[GEN], forwards.append)
        loop = open_loop(bundle, tap, prompts)
        run_requests(loop, requests, reader.settings, tap)
        loop.close()
        for observer in observers.values():
            observer.close()
        return cls(bundle, towers, forwards, prompts.items(), {g: o.amax() for g, o in observers.items()})

    def statistics(self, graph: str) -> dict[str, SiteStatistics]:
        """Ranges as measured; AWQ scales drawn, for what is written does not depend on how good they are."""
        random = torch.Generator().manual_seed(5)
        found = {}
        for name, (site, layer) in module_sites(self.towers[graph].module).items():
            awq = torch.rand(site.inputs, generator=random) * 0.5 + 0.75
            found[name] = SiteStatistics(self.amax[graph][name], layer.weight.abs().amax(1), awq)
        return found

    def parameters(self, graph: str, recipe: Recipe) -> dict[str, SiteParameters]:
        """Of every site that the recipe quantizes."""
        statistics = self.statistics(graph)
        schemes = recipe.resolve(graph, list(statistics))
        return {name: statistics[name].parameters(scheme, name) for name, scheme in schemes.items()}
