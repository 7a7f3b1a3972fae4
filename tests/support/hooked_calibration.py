"""Calibration by forward hooks on the torch towers: small, slow, and independent of motedge.quant.calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from motedge.bundle import Bundle
from motedge.quant.calibration.result import Calibration, CalibrationData, SiteStatistics
from motedge.quant.replay import RequestReader, encode_prompts, open_loop, run_requests
from motedge.quant.sites import module_sites
from motedge.quant.towers import open_tower
from motedge.runtime.policy.observation import Observation


def hooked_calibration(bundle: Bundle, observations: Sequence[Observation]) -> Calibration:
    """Ranges by channel of every site's input, over whole loops; AWQ's scale is the root of the mean range."""
    reader = RequestReader(bundle, open_tower(bundle, "vae_encoder"))
    requests = [reader.read(value, number) for number, value in enumerate(observations)]
    und, gen = open_tower(bundle, "und_prefill"), open_tower(bundle, "gen_step")
    ranges: dict[str, dict[str, torch.Tensor]] = {"und_prefill": {}, "gen_step": {}}
    for graph, engine in (("und_prefill", und), ("gen_step", gen)):
        for name, (_, layer) in module_sites(engine.module).items():
            layer.register_forward_pre_hook(_note(ranges[graph], name))
    prompts = encode_prompts(bundle, und, requests, reader.settings)
    run_requests(open_loop(bundle, gen, prompts), requests, reader.settings)
    graphs: dict[str, dict[str, SiteStatistics]] = {}
    for graph, engine in (("und_prefill", und), ("gen_step", gen)):
        graphs[graph] = {}
        for name, (_, layer) in module_sites(engine.module).items():
            amax = ranges[graph][name]
            awq = (amax / amax.mean()).clamp(min=1e-3).sqrt()
            graphs[graph][name] = SiteStatistics(amax, layer.weight.abs().amax(1).float(), awq)
    moments = tuple(("observation", number) for number in range(len(observations)))
    data = CalibrationData("scene", "stand-in", "0" * 64, "all", moments, (), {}, {})
    return Calibration(str(bundle.manifest.model["checkpoint"]["fingerprint"]), data, graphs)


def _note(known: dict[str, torch.Tensor], name: str) -> Any:
    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        amax = inputs[0].detach().float().abs().reshape(-1, inputs[0].shape[-1]).amax(0)
        known[name] = torch.maximum(known[name], amax) if name in known else amax

    return hook
