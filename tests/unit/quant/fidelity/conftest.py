"""A made-up report with everything in it that a page has to show, names that must be escaped among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from motedge.quant.fidelity.chunk import chunk_error
from motedge.quant.fidelity.figures import Figures, figures_of
from motedge.quant.fidelity.loops import VelocityError
from motedge.quant.fidelity.report import FidelityReport
from motedge.quant.fidelity.verdict import judge
from motedge.quant.fidelity.weights import SiteError
from motedge.runtime.comparison import QUANTIZED_GATE
from motedge.runtime.policy.embodiments import find_embodiment

MakeReport = Callable[..., FidelityReport]
NOT_FINITE = Figures(None, None, None, None, 10, 3)


def noisy(level: float, seed: int = 0, size: int = 4096) -> Figures:
    """The figures of a vector with relative noise."""
    random = np.random.RandomState(seed)
    reference = random.randn(size)
    return figures_of(reference + level * random.randn(size), reference)


def _sites(layers: int) -> list[SiteError]:
    found = []
    for graph, projections in (("und_prefill", ["self_attn.to_q"]), ("gen_step", ["mlp.up<proj>", "self_attn.q"])):
        for layer in range(layers):
            for projection in projections:
                heard = noisy(0.01 * (layer + 1)) if graph == "gen_step" else None
                known: dict[str, Any] = {} if heard is None else {"range_ratio": 1.25, "clipped": 0.001}
                site = SiteError(
                    graph,
                    f"layers.{layer}.{projection}",
                    layer,
                    projection,
                    "fp8",
                    8.0,
                    64,
                    noisy(0.02),
                    heard,
                    **known,
                )
                found.append(site)
    return found


def _facts() -> dict[str, Any]:
    data = {
        "dataset": "scene & co",
        "kind": "images",
        "fingerprint": "ab" * 32,
        "rule": "one episode: a block apart in time",
        "calibration": [["0", 1], ["0", 2]],
        "held_out": [["0", 9]],
        "forwards": {"0 conditional": 2},
        "settings": {"steps": 4},
        "notes": ["5 < 6"],
        "measured_on": {"dataset": "scene & co", "kind": "images", "fingerprint": "ab" * 32},
    }
    return {
        "model": {
            "family": "edge",
            "variant": "a & b",
            "checkpoint": {"name": "<script>alert(1)</script>", "fingerprint": "cd" * 32},
        },
        "bundles": {"source": "one", "quantized": "two"},
        "recipe": {"id": "fp8", "revision": 3, "fingerprint": "ef" * 32},
        "shape_set": "mini",
        "engine": "onnxruntime, x against y",
        "compute": "fp32",
        "noise_seeds": [1],
        "data": data,
        "machine": {"cpu": "a processor", "device": "cpu", "threads": None},
        "versions": {"motedge": "0.1.0"},
        "date": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
    }


def _make(
    level: float = 0.01, *, figures: Figures | None = None, measured: bool = True, layers: int = 2, **changes: Any
) -> FidelityReport:
    worst = figures or noisy(level)
    random = np.random.RandomState(3)
    reference = random.randn(2, 9, 64).astype(np.float32)
    actions = reference + np.float32(level) * random.randn(*reference.shape).astype(np.float32)
    if figures is not None:
        actions[0, 4] = np.nan
    chunk = chunk_error(actions, reference, find_embodiment("droid_lerobot"))
    velocities = [
        VelocityError(step, branch, 999.0 - step, tensor, worst, noisy(2 * level))
        for step in range(2)
        for branch in ("conditional", "unconditional")
        for tensor in ("vision", "action")
    ]
    deciding: Sequence[tuple[str, Figures]] = [("action chunk", chunk.overall), ("worst velocity", worst)]
    values: dict[str, Any] = {
        "recipe": "fp8",
        "verdict": judge(QUANTIZED_GATE, deciding if measured else []),
        "sites": _sites(layers),
        "velocities": velocities if measured else [],
        "und_kv": noisy(level) if measured else None,
        "latent": worst if measured else None,
        "chunk": chunk if measured else None,
        "size": {"gen_step": {"source_bytes": 4000, "quantized_bytes": 1100}},
        "facts": _facts(),
        "caveats": ["It does not predict task success", "Weights are random: numbers prove paths, not quality."],
        "latency": {"predicted_ms": None, "why": "no target"},
    }
    return FidelityReport(**{**values, **changes})


@pytest.fixture(scope="session")
def make_report() -> MakeReport:
    """Makes a report with errors of a given level; `figures` takes the place of some of them."""
    return _make


@pytest.fixture(scope="session")
def not_finite() -> Figures:
    """The figures of a tensor with NaN in it."""
    return NOT_FINITE
