"""A reasoner and a policy in one process: the understanding tower's weights stand in memory once, actions stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_reference import CUP, DOOR, observation
from tiny import MINI_POLICY

import motedge
from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.runtime.reasoner.sampling import SamplingOptions

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
# Of the weights, what sharing must save at least: allocators round, and und_prefill has buffers of its own
SAVED = 0.9
PROGRAM = """
import json, re, sys, motedge
import motedge.runtime.policy, motedge.runtime.reasoner.loader
def private_bytes():
    text = open("/proc/self/smaps_rollup").read()
    return 1024 * sum(int(re.search(name + r":\\s+(\\d+)", text)[1]) for name in ("Private_Clean", "Private_Dirty"))
reasoner = motedge.load_reasoner(sys.argv[1], check="size", threads=1)
before = private_bytes()
more = {"reasoner": reasoner} if sys.argv[2] == "shared" else {}
policy = motedge.load_policy(sys.argv[1], check="size", threads=1, **more)
print(json.dumps(private_bytes() - before))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    checkpoint = make_checkpoint(root / "small", "edge", "policy-droid", "small", seed=3)
    options = ExportOptions(MINI_POLICY, parse_variants("primitive-fp32"), "none", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoint), root / "bundle", options)
    return root / "bundle"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell private memory")
def test_weights_stand_in_memory_once(bundle: Path) -> None:
    taken = {
        mode: json.loads(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, str(bundle), mode], check=True, capture_output=True, text=True
            ).stdout
        )
        for mode in ("shared", "apart")
    }
    weights = sum((bundle / name).stat().st_size for name in _weights(bundle, "und_prefill"))
    assert taken["apart"] - taken["shared"] >= SAVED * weights, (taken, weights)


def _weights(bundle: Path, graph: str) -> tuple[str, ...]:
    return tuple(Bundle.open(bundle).variant(graph, "primitive-fp32").weights)


def test_actions_and_words_stay(bundle: Path, tmp_path: Path) -> None:
    seen, greedy = observation(CUP), SamplingOptions(max_new_tokens=6)
    with motedge.load_policy(bundle) as policy:
        expected = policy.act(seen, seed=1).actions
    with motedge.load_reasoner(bundle) as reasoner:
        said = list(reasoner.ask(CUP, options=greedy))[-1]
        with motedge.load_policy(bundle, reasoner=reasoner) as policy:
            chunk = policy.act(seen, seed=1)
            np.testing.assert_allclose(chunk.actions, expected, rtol=0, atol=TOLERANCE)
            assert chunk.details["prompts_read_by"] == "und primitive-fp32"
            # A tick, whose prompt is read then, in the middle of a reply
            reply = reasoner.ask(CUP, options=greedy)
            next(reply)
            policy.act(observation(DOOR), seed=1)
            again = list(reply)[-1]
            np.testing.assert_allclose(policy.act(seen, seed=1).actions, expected, rtol=0, atol=TOLERANCE)
        # A closed policy leaves the reasoner as it was
        last = list(reasoner.ask(CUP, options=greedy))[-1]
        assert said.token_ids == again.token_ids == last.token_ids
        (tmp_path / "copy").symlink_to(bundle)
        motedge.load_policy(tmp_path / "copy", reasoner=reasoner).close()


def test_another_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "other", copy_function=os.link)
    with motedge.load_reasoner(bundle, check="size") as reasoner:
        with pytest.raises(UsageError, match="different bundles"):
            motedge.load_policy(tmp_path / "other", check="size", reasoner=reasoner)
        with pytest.raises(UsageError, match="can't share this reasoner's weights"):
            motedge.load_policy(bundle, check="size", engine="onnxruntime-cuda", reasoner=reasoner)
