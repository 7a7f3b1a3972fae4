"""The device's part needs nothing but Python: no numpy, no engine library, no package for signatures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from minisign_made import MadeKey
from packed import make_archive, make_listing

_CODE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ("numpy", "onnx", "onnxruntime", "torch", "tensorrt", "tokenizers", "jinja2", "cryptography", "nacl"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Nothing())
from motedge.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_signed_bundle_is_installed_without_any_package(tmp_path: Path) -> None:
    key = MadeKey.new()
    archive = tmp_path / "edge.tar"
    archive.write_bytes(make_archive(signature=key.sign(make_listing().to_bytes())))
    options = ["--root", str(tmp_path / "device"), "--require-signature", key.public, "--any-device"]
    command = [sys.executable, "-c", _CODE, "install", str(archive), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"by key {key.name}, good" in done.stdout and (tmp_path / "device/current/LICENSE").is_file()
