"""The evidence that goes into a quantized bundle: its fidelity report, and what a device's self-check must reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError
from motedge.quant.fidelity.engines import cpu_bases
from motedge.quant.fidelity.measure import FidelityOptions, measure_fidelity
from motedge.quant.fidelity.report import write_report
from motedge.quant.plan import QuantizePlan
from motedge.quant.statistics import Statistics
from motedge.runtime.comparison import DEFAULT_GATES, Comparison
from motedge.runtime.verify import verify_bundle

FIDELITY_FOLDER = "fidelity"
_CPU = "onnxruntime"
# A device rounds elsewhere than this CPU does, and a value near a rounding border then takes the other neighbour
_SLACK = 1.5


def measure(
    plan: QuantizePlan, statistics: Statistics, quantized: Bundle, options: FidelityOptions, folder: Path
) -> None:
    """Measures and writes report.json and report.html."""
    report = measure_fidelity(
        plan.bundle,
        quantized,
        plan.recipe.id,
        statistics.parameters,
        statistics.calibration.data if statistics.calibration else None,
        statistics.dataset,
        statistics.held_out,
        options,
    )
    write_report(folder, report)


def gates_of_samples(plan: QuantizePlan, statistics: Statistics, quantized: Bundle) -> dict[str, Any]:
    """The bundle's samples with a gate for each quantized variant that a CPU runs.

    The recorded outputs stay those of the fp32 reference. A quantized graph lies some way off; the gate is the way that
    was measured here with half as much again, so that `motedge verify` on a device tells a wrong engine from a coarse
    recipe.
    """
    samples = {name: dict(entry) for name, entry in quantized.manifest.samples.items()}
    recipe = plan.recipe.id
    for base in cpu_bases(plan.bundle, quantized, recipe, statistics.parameters):
        dtype = base.rpartition("-")[2]
        try:
            reports = verify_bundle(quantized, backend=_CPU, variant=base, recipe=recipe)
        except HostError:
            # A bundle that was exported without samples
            return samples
        for report in reports:
            if not report.comparisons:
                continue
            if any(comparison.non_finite for comparison in report.comparisons):
                raise BundleError(
                    f"sample {report.sample!r} of {base}-{recipe} gives NaN or infinity",
                    why="a scale that its type can't hold",
                    fix="take another recipe, or leave the projection unquantized",
                )
            gates = samples[report.sample].setdefault("gate", {})
            gates[f"{dtype}-{recipe}"] = _gate(report.comparisons, dtype)
    return samples


def _gate(comparisons: Sequence[Comparison], dtype: str) -> Mapping[str, float]:
    own = DEFAULT_GATES[dtype]
    distance = max(c.relative_l2 or 0.0 for c in comparisons)
    cosine = min(c.cosine if c.cosine is not None else 1.0 for c in comparisons)
    return {
        "cosine": round(max(-1.0, 1 - _SLACK**2 * (1 - cosine) - (1 - own.cosine)), 7),
        "relative_l2": round(_SLACK * distance + own.relative_l2, 7),
    }
