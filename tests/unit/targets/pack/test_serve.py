"""Which graphs a device gets, and which of its releases take them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pack_scene import make_bundle

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError, MotedgeError, UsageError
from motedge.targets.catalog import load_target
from motedge.targets.pack.serve import Wish, choose_for

ORIN, THOR = "jetson-orin-nano-8gb", "jetson-agx-thor-t5000"
JETPACK_6, JETPACK_72 = (
    ["JetPack 6.2", "JetPack 6.2.1", "JetPack 6.2.2"],
    ["JetPack 7.2", "JetPack 7.2.1", "JetPack 7.2.2"],
)


def _served(root: Path, target: str, **wish: str) -> tuple[list[str], list[str]]:
    found = choose_for(Bundle.open(root), load_target(target), Wish(**wish))
    return sorted({c.variant for c in found.choices}), [row.release for row in found.releases]


@pytest.mark.parametrize(
    ("target", "variants", "chosen", "releases"),
    [
        (ORIN, ["primitive-fp16"], "primitive-fp16", [*JETPACK_6, *JETPACK_72]),
        (ORIN, ["fused-bf16"], "fused-bf16", JETPACK_72),
        (ORIN, ["fused-bf16", "fused-fp16"], "fused-bf16", JETPACK_72),
        (THOR, ["primitive-fp16"], "primitive-fp16", ["JetPack 7.0", "JetPack 7.1", *JETPACK_72]),
        ("rtx-4090", ["primitive-fp16", "fused-fp16", "fused-bf16"], "fused-bf16", ["TensorRT-RTX 1.7"]),
        ("cpu", ["primitive-fp32", "primitive-fp16", "fused-bf16"], "primitive-fp32", ["onnxruntime 1.19 or later"]),
    ],
)
def test_the_device_decides(target: str, variants: list[str], chosen: str, releases: list[str], tmp_path: Path) -> None:
    assert _served(make_bundle(tmp_path / "b", variants), target) == ([chosen], releases)


def test_where_releases_need_different_graphs_one_is_named(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "b", ["primitive-fp16", "fused-bf16"])
    with pytest.raises(UsageError, match="need different graphs") as caught:
        _served(root, ORIN)
    assert "JetPack 6.2" in caught.value.got and "fused-bf16" in caught.value.got and "--release" in caught.value.fix
    assert _served(root, ORIN, release="JetPack 6.2") == (["primitive-fp16"], ["JetPack 6.2"])
    assert _served(root, ORIN, release="JetPack 7.2") == (["fused-bf16"], ["JetPack 7.2"])
    # A variant that was named decides too, and what newer releases take older graphs is kept
    assert _served(root, ORIN, variant="primitive-fp16") == (["primitive-fp16"], [*JETPACK_6, *JETPACK_72])


def test_a_bundle_without_what_the_device_takes_says_how_to_export_it(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "b", ["fused-bf16"])
    with pytest.raises(BundleError, match="no variant of graph") as caught:
        _served(root, ORIN, release="JetPack 6.2")
    assert "motedge export CHECKPOINT --out BUNDLE --variants primitive-fp16" in caught.value.fix


def test_what_was_never_tried_is_said(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "b", ["primitive-fp16"], opset=21)
    served = choose_for(Bundle.open(root), load_target(ORIN), Wish(release="JetPack 6.2"))
    assert ["opset 21" in doubt and "10.3" in doubt for doubt in served.doubts] == [True, True]
    assert choose_for(Bundle.open(root), load_target(ORIN), Wish(release="JetPack 7.2")).doubts == ()


def test_a_release_that_lacks_a_recipe_s_format_is_left_out(tmp_path: Path) -> None:
    """TensorRT 10.3 has no FP4; a device that had it and 10.16 would be served in the newer release alone."""
    root = make_bundle(tmp_path / "b", ["primitive-fp16-nvfp4"])
    text = (Path(__file__).parents[4] / "targets/data/jetson-agx-thor-t5000.toml").read_text()
    (tmp_path / "own-thor.toml").write_text(text + '[[software]]\nrelease = "JetPack 6.2"\n')
    variants, releases = _served(root, str(tmp_path / "own-thor.toml"))
    assert variants == ["primitive-fp16-nvfp4"] and "JetPack 7.0" in releases and "JetPack 6.2" not in releases
    with pytest.raises(UsageError, match=r"TensorRT 10\.3 has no nvfp4"):
        _served(root, str(tmp_path / "own-thor.toml"), release="JetPack 6.2")


def test_a_recipe_that_the_device_has_no_format_for(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "b", ["primitive-fp16-fp8"])
    with pytest.raises(MotedgeError, match="fp8"):
        _served(root, ORIN, recipe="fp8")
    assert _served(root, THOR, recipe="fp8")[0] == ["primitive-fp16-fp8"]


@pytest.mark.parametrize(
    ("wish", "said", "fix"),
    [
        ({"release": "JetPack 6.3"}, "no release", "did you mean 'JetPack 6.2'"),
        ({"variant": "primitive-fp61"}, "no variant", "did you mean 'primitive-fp16'"),
        ({"recipe": "fp8"}, "no graph of the bundle is quantized", "motedge quantize"),
    ],
)
def test_unknown_names(wish: dict[str, str], said: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        _served(make_bundle(tmp_path / "b"), ORIN, **wish)
    assert fix in caught.value.fix


def test_a_device_whose_tensorrt_is_not_known(tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "targets/data/h100.toml").read_text()
    head, _, _ = text.partition("[[software]]")
    own = tmp_path / "own-card.toml"
    own.write_text(head + '[[software]]\nrelease = "mine"\ntensorrt = "9.1"\nmark = "unverified"\nsource = "nobody"\n')
    with pytest.raises(HostError, match="no release of own-card") as caught:
        _served(make_bundle(tmp_path / "b"), str(own))
    assert "9.1" in caught.value.got
