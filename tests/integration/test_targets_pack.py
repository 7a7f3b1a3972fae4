"""From a real bundle to a device that acts: pack, install, verify; a fleet's next version, and the way back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.cli.main import main
from motedge.files import sha256_file
from motedge.targets.install import Store

MINISIGN = shutil.which("minisign")


def _keys(folder: Path) -> tuple[str, str]:
    public, secret = folder / "key.pub", folder / "key.sec"
    command = [str(MINISIGN), "-G", "-W", "-p", str(public), "-s", str(secret)]
    subprocess.run(command, check=True, capture_output=True)
    return str(public), str(secret)


def test_a_packed_bundle_verifies_on_the_device(bundles: dict[str, Path], tmp_path: Path) -> None:
    """What onnxruntime computes from the unpacked bundle is what the samples say, the whole tick included."""
    archive, root = tmp_path / "edge.tar", tmp_path / "device"
    assert main(["pack", str(bundles["edge"]), "--target", "cpu", "--no-wheel", "--out", str(archive)]) == 0
    assert main(["install", str(archive), "--root", str(root)]) == 0
    assert main(["inspect", str(root / "current"), "--check"]) == 0
    assert main(["verify", str(root / "current")]) == 0
    whole, packed = Bundle.open(bundles["edge"]).manifest, Bundle.open(root / "current").manifest
    assert packed.files == whole.files and packed.graphs == whole.graphs and packed.tables == whole.tables


def test_one_variant_of_many_and_the_weights_it_needs(full_variants: dict[str, Path], tmp_path: Path) -> None:
    source = Bundle.open(full_variants["edge"])
    archive, root = tmp_path / "edge.tar", tmp_path / "device"
    command = ["pack", str(source.root), "--target", "jetson-orin-nano-8gb", "--release", "JetPack 6.2", "--no-wheel"]
    assert main([*command, "--out", str(archive)]) == 0
    assert main(["install", str(archive), "--root", str(root), "--any-device"]) == 0
    bundle = Bundle.open(root / "current")
    for graph, entry in bundle.manifest.graphs.items():
        variant = "primitive-fp32" if graph in WEIGHTLESS_GRAPHS else "primitive-fp16"
        assert list(entry.variants) == [variant]
        # The ONNX file's own references to weights are all there
        bundle.check_variant(graph, variant)
    assert not [name for name in bundle.manifest.files if ".bf16." in name or ".fp32." in name]
    packed = sum(entry.bytes for entry in bundle.manifest.files.values())
    assert packed < sum(entry.bytes for entry in source.manifest.files.values())


@pytest.mark.skipif(MINISIGN is None, reason="minisign is not installed: apt install minisign")
def test_a_fleet_s_next_version_and_the_way_back(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed by the real minisign, required by the device's file; a changed archive leaves the old one active."""
    public, secret = _keys(tmp_path)
    trust = tmp_path / "trust.toml"
    key = Path(public).read_text().splitlines()[1]
    trust.write_text(f'schema = "motedge.trust/v1"\nrequire_signature = true\npublic_keys = ["{key}"]\n')
    monkeypatch.setenv("MOTEDGE_TRUST", str(trust))
    root = tmp_path / "device"
    for version, family in enumerate(("edge", "nano")):
        out = tmp_path / f"{version}.tar"
        options = ["--target", "cpu", "--no-wheel", "--sign", secret, "--out", str(out)]
        assert main(["pack", str(bundles[family]), *options]) == 0
        again = tmp_path / "again.tar"
        assert main(["pack", str(bundles[family]), *options[:-1], str(again)]) == 0
        assert sha256_file(out) == sha256_file(again)
        before = Store(root).current
        data = out.read_bytes()
        for position in (600, len(data) // 2, len(data) - 3000):
            changed = bytes([*data[:position], data[position] ^ 1, *data[position + 1 :]])
            (tmp_path / "changed.tar").write_bytes(changed)
            assert main(["install", str(tmp_path / "changed.tar"), "--root", str(root)]) == 2
            assert Store(root).current == before
        assert main(["install", str(out), "--root", str(root)]) == 0
    families = [Bundle.open(root / "current").manifest.model["family"]]
    assert main(["install", "--rollback", "--root", str(root)]) == 0
    families.append(Bundle.open(root / "current").manifest.model["family"])
    assert families == ["nano", "edge"]
    assert main(["verify", str(root / "current"), "--json"]) == 0


@pytest.mark.slow
def test_the_one_command_on_a_device_without_network(bundles: dict[str, Path], tmp_path: Path) -> None:
    """The script of the archive, a real virtual environment, motedge from its wheel; the bundle then runs in there.

    The system's packages are those of this environment, as TensorRT and numpy are the system's on a device.
    """
    archive, root = tmp_path / "edge.tar", tmp_path / "opt"
    assert main(["pack", str(bundles["edge"]), "--target", "cpu", "--out", str(archive)]) == 0
    script = tmp_path / "install.sh"
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tmp_path), "install.sh"], check=True)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": site, "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}
    command = ["bash", str(script), str(archive), "--root", str(root), "--python", sys.executable]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program = str(root / "motedge")
    listed = subprocess.run(
        [program, "install", "--list", "--json", "--root", str(root)], capture_output=True, check=True
    )
    assert [bundle["active"] for bundle in json.loads(listed.stdout)["bundles"]] == [True]
    where = "import motedge; print(motedge.__file__)"
    python = next((root / "venvs").glob("*/bin/python"))
    own = subprocess.run([str(python), "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(root) in own.stdout
    verified = subprocess.run(
        [program, "verify", str(root / "current")], env=environment, capture_output=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
