"""A bundle without weights, filled in again, is one that a policy can act on."""

from __future__ import annotations

import json
from pathlib import Path

import gpu_bundle
import numpy as np
import pytest

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError
from motedge.runtime.policy import Observation, load_policy

VARIANT = "primitive-fp32"
SEEN = Observation((0.1,) * 7, 0.2, "Lift the cup.", image=np.full((540, 640, 3), 90, np.uint8))


@pytest.fixture
def bundle(tiny_policy_bundle: Path) -> Path:
    return tiny_policy_bundle


@pytest.mark.slow
def test_a_skeleton_travels_light_and_is_filled_in(bundle: Path, tmp_path: Path) -> None:
    left_out = gpu_bundle.write_skeleton(bundle, tmp_path / "out")
    assert "graphs/weights/gen_step.fp32.data" in left_out
    assert not any(name.startswith(("contracts", "tokenizer")) for name in left_out)
    travelling = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert travelling < 1_500_000
    with pytest.raises(BundleError):
        load_policy(tmp_path / "out", variant=VARIANT, check="size")
    report = gpu_bundle.fill(tmp_path / "out", [VARIANT], seed=3)
    assert report["bytes"] > 10_000_000
    with load_policy(tmp_path / "out", variant=VARIANT, check="size", threads=1) as policy:
        chunk = policy.act(SEEN, seed=1)
    assert np.isfinite(chunk.actions).all()
    assert chunk.actions.std() > 0
    # Nothing is drawn twice
    assert gpu_bundle.fill(tmp_path / "out", [VARIANT], seed=3)["bytes"] == 0


@pytest.mark.slow
def test_variants_hold_the_same_weights(bundle: Path, tmp_path: Path) -> None:
    gpu_bundle.write_skeleton(bundle, tmp_path / "out")
    gpu_bundle.fill(tmp_path / "out", [VARIANT, "fused-fp16"])
    opened = Bundle.open(tmp_path / "out")
    found = {}
    for variant, kind in ((VARIANT, np.float32), ("fused-fp16", np.float16)):
        slots = [
            s
            for s in gpu_bundle.weight_slots(opened, [variant])
            if s.name.endswith("layers.1.mlp_moe_gen.up_proj.weight")
        ]
        assert len(slots) == 1
        data = np.fromfile(tmp_path / "out" / slots[0].file, kind, int(np.prod(slots[0].shape)), offset=slots[0].offset)
        found[variant] = data.astype(np.float32)
        # Variance is kept: 1 / sqrt(inputs)
        assert found[variant].std() == pytest.approx(slots[0].shape[0] ** -0.5, rel=0.05)
    np.testing.assert_allclose(found["fused-fp16"], found[VARIANT], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_what_it_refuses(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="exists"):
        gpu_bundle.write_skeleton(bundle, tmp_path)
    with pytest.raises(UsageError, match="fused-fp16"):
        gpu_bundle.fill(bundle, ["fused-fp61"])
    assert gpu_bundle.main(["fill", str(tmp_path / "nothing")]) == BundleError.exit_code
    assert "no bundle" in capsys.readouterr().err
    assert gpu_bundle.main(["skeleton", str(bundle), str(tmp_path / "out")]) == 0
    assert "gen_step" in json.loads(capsys.readouterr().out)["left_out"][0]
