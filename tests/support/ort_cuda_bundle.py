"""Writes a tiny bundle with every variant, to be carried to a GPU for ort_cuda_on_gpu.py: a few megabytes.

python tests/support/ort_cuda_bundle.py OUT
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tiny import MINI

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants


def main(out: str) -> int:
    """Makes a checkpoint of random weights, exports it, and says how large the bundle is."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "edge", "edge", "policy-droid", "tiny", seed=7)
        export_bundle(Checkpoint.open(checkpoint), out, ExportOptions(MINI, parse_variants("all"), "none"))
    for part in ("tables", "tokenizer"):
        # Engines need neither
        shutil.rmtree(Path(out) / part)
    size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    sys.stdout.write(f"{out}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
