"""Wheels that go along: named as wheels are, for the device's processor, and the same bytes from the same source."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from pack_scene import make_wheel

from motedge.errors import HostError, UsageError
from motedge.files import sha256_file
from motedge.targets.catalog import load_target
from motedge.targets.pack.notices import RUNTIME_LICENCES, notice
from motedge.targets.pack.wheels import build_wheel, checkout, find_wheels, licence_of, parse_wheel

ROOT = Path(__file__).resolve().parents[4]
ORIN = load_target("jetson-orin-nano-8gb")


@pytest.mark.parametrize(
    ("name", "project", "machines"),
    [
        ("motedge-0.1.0-py3-none-any.whl", "motedge", ()),
        ("numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", "numpy", ("aarch64",)),
        ("huggingface_hub-1.0-1-py3-none-any.whl", "huggingface-hub", ()),
        ("hf_xet-1.2.0-cp37-abi3-manylinux_2_28_x86_64.whl", "hf-xet", ("x86_64",)),
        ("MarkupSafe-3.0.3-cp312-cp312-macosx_11_0_arm64.whl", "markupsafe", ("arm64",)),
    ],
)
def test_names(name: str, project: str, machines: tuple[str, ...], tmp_path: Path) -> None:
    wheel = parse_wheel(make_wheel(tmp_path, name))
    assert (wheel.name, wheel.machines, wheel.member) == (project, machines, f"wheels/{name}")


def test_a_long_name_loses_tags_and_stays_a_wheel(tmp_path: Path) -> None:
    tags = "manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64"
    wheel = parse_wheel(make_wheel(tmp_path, f"markupsafe-3.0.4-cp310-cp310-{tags}.whl"))
    assert wheel.member == "wheels/markupsafe-3.0.4-cp310-cp310-manylinux2014_aarch64.manylinux_2_17_aarch64.whl"
    with pytest.raises(UsageError, match="too long"):
        parse_wheel(make_wheel(tmp_path, f"{'x' * 90}-1-py3-none-any.whl"))


@pytest.mark.parametrize("name", ["motedge.whl", "motedge-0.1.0.tar.gz", "motedge-0.1.0-py3-none-any.zip"])
def test_what_is_no_wheel(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match="not a wheel"):
        parse_wheel(tmp_path / name)
    (tmp_path / "motedge-0.1.0-py3-none-any.whl").write_bytes(b"text")
    with pytest.raises(UsageError, match="not a wheel"):
        parse_wheel(tmp_path / "motedge-0.1.0-py3-none-any.whl")


def test_a_wheel_for_another_processor_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path, "numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.whl")
    with pytest.raises(UsageError, match="another machine") as caught:
        find_wheels(None, tmp_path, ORIN)
    assert caught.value.got == "x86_64" and "aarch64" in caught.value.fix
    assert find_wheels(None, tmp_path, load_target("rtx-4090"))


def test_the_wheel_that_was_named_wins(tmp_path: Path) -> None:
    make_wheel(tmp_path / "many", "motedge-0.0.9-py3-none-any.whl")
    make_wheel(tmp_path / "many", "jinja2-3.1.6-py3-none-any.whl")
    own = make_wheel(tmp_path / "own")
    found = find_wheels(own, tmp_path / "many", ORIN)
    assert [(wheel.name, wheel.version) for wheel in found] == [("jinja2", "3.1.6"), ("motedge", "0.1.0")]
    with pytest.raises(UsageError, match="no wheels"):
        find_wheels(None, tmp_path, ORIN)
    with pytest.raises(UsageError, match="not a wheel of motedge"):
        find_wheels(tmp_path / "many/jinja2-3.1.6-py3-none-any.whl", None, ORIN)


def test_the_notice_names_every_package(tmp_path: Path) -> None:
    make_wheel(tmp_path, "jinja2-3.1.6-py3-none-any.whl", "BSD-3-Clause")
    wheels = find_wheels(None, tmp_path, ORIN)
    text = notice({"checkpoint": {"name": "edge-ckpt"}, "revision": "abc"}, None, wheels)
    assert "jinja2 3.1.6: BSD-3-Clause" in text and "edge-ckpt" in text and "abc" in text and "OpenMDW-1.1" in text
    assert "onnxruntime: MIT" in text and "has to pass the licence on" in text
    assert licence_of(wheels[0]) == "BSD-3-Clause"


def test_every_package_of_the_device_has_its_licence_named() -> None:
    """What pyproject.toml asks for on the device is in the notice."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))]
    assert set(re.findall(r'^\s*"([A-Za-z0-9-]+)', block, re.MULTILINE)) == set(RUNTIME_LICENCES)


@pytest.mark.slow
def test_a_wheel_is_built_from_the_source_and_leaves_nothing_there(tmp_path: Path) -> None:
    source = checkout()
    assert source == ROOT
    before = {path.name for path in source.iterdir()}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = build_wheel(source, tmp_path / "one"), build_wheel(source, tmp_path / "two")
    assert sha256_file(one) == sha256_file(two) and {path.name for path in source.iterdir()} == before
    with zipfile.ZipFile(one) as archive:
        assert {"motedge/targets/pack/templates/install.sh.in", "motedge/cli/install.py"} <= set(archive.namelist())


def test_a_source_that_can_not_be_built(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/pyproject.toml").write_text("[build-system\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(HostError, match="could not be built") as caught:
        build_wheel(tmp_path / "source", tmp_path / "out")
    assert "--no-wheel" in caught.value.fix
