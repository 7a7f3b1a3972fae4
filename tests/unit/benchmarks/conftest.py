"""One tiny bundle of the DROID policy for all tests of programs that measure and check on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import MINI_POLICY


@pytest.fixture(scope="session")
def tiny_policy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from motedge.checkpoint.make import make_checkpoint
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.variants import parse_variants

    root = tmp_path_factory.mktemp("tiny_policy")
    make_checkpoint(root / "checkpoint", "edge", "policy-droid", "tiny", seed=7)
    variants = parse_variants("primitive-fp32,fused-fp16,primitive17-fp32")
    export_bundle(Checkpoint.open(root / "checkpoint"), root / "bundle", ExportOptions(MINI_POLICY, variants, "none"))
    return root / "bundle"
