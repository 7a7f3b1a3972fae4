"""Published times of Cosmos 3 beside the roofline's predictions, each by a fit that has not seen its origin.

    python benchmarks/roofline_fit.py

Measures nothing: it says how far `motedge plan` may be trusted. Needs no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from conditions import collect_conditions

from motedge.files import write_json
from motedge.targets.catalog import load_target
from motedge.targets.roofline.fit import Judged, efficiency_of, judge

ROW = "{:<34} {:<22} {:<18} {:>10} {:>10} {:>6} {:>6}  {}"


def main() -> int:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    judgement = judge()
    print(ROW.format("figure", "device", "origin", "published", "predicted", "ratio", "class", ""))
    for row in judgement.rows:
        print(_line(row))
    worst = judgement.worst
    print(
        f"\npredicted, ratio: by a fit without any figure of that origin (who held the clock); class: ratio of a fit "
        "without any figure of that class of devices\n"
        f"left out, an origin at a time, decoding aside: off by a factor of {judgement.typical_factor:.2f} (root mean "
        f"square), at worst {max(worst.ratio, 1 / worst.ratio):.2f} ({worst.figure.id}); "
        f"{100 * judgement.within:.0f} % lie in a plan's interval\n"
        f"left out, a class of devices at a time: {math.exp(judgement.class_log_error):.2f}\n"
        f"geometric mean of misses: {judgement.mean_factor():.2f} of fitted figures, "
        f"{judgement.mean_factor(everything=True):.2f} of all\n"
        f"beside its stages a published request takes {1000 * efficiency_of('thor').request_s:.0f} ms"
    )
    classes = sorted({load_target(row.figure.target).architecture for row in judgement.rows})
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "roofline_fit",
        "conditions": collect_conditions(),
        "note": "predicted: by a fit without that origin's figures; ratio: predicted over published; class_ratio: by a "
        "fit without figures of that class of devices; figures that are not fitted are predicted by the same and do "
        "not count for the error, nor does decoding",
        "typical_factor": round(judgement.typical_factor, 4),
        "class_factor": round(math.exp(judgement.class_log_error), 4),
        "mean_factor_fitted": round(judgement.mean_factor(), 4),
        "mean_factor_all": round(judgement.mean_factor(everything=True), 4),
        "within_interval": round(judgement.within, 4),
        "worst": {"figure": worst.figure.id, "ratio": round(worst.ratio, 3)},
        "efficiency": {name: dataclasses.asdict(efficiency_of(name)) for name in classes},
        "rows": [_json(row) for row in judgement.rows],
    }
    args.results.mkdir(parents=True, exist_ok=True)
    write_json(args.results / "roofline_fit.json", result)
    return 0


def _line(row: Judged) -> str:
    figure = row.figure
    return ROW.format(
        figure.id,
        figure.target,
        figure.origin,
        f"{figure.seconds:.4g} s",
        f"{row.unseen_s:.4g} s",
        f"{row.ratio:.2f}",
        f"{row.class_ratio:.2f}",
        "" if figure.fitted else f"not fitted: {figure.why}",
    )


def _json(row: Judged) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row.figure),
        "predicted_seconds": row.unseen_s,
        "predicted_by_all_seconds": row.predicted_s,
        "origin": row.figure.origin,
        "ratio": round(row.ratio, 4),
        "class_ratio": round(row.class_ratio, 4),
        "bound": row.bound,
    }


if __name__ == "__main__":
    sys.exit(main())
