"""A bundle of a few bytes, sound as far as manifest and hashes go: enough for what reads no graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motedge.bundle import SCHEMA
from motedge.bundle.contract import CONTRACT_SCHEMA
from motedge.files import sha256_file

# An empty ONNX file is a valid protobuf message without initializers
FILES = {
    "contracts/gen_step.json": ("contract", b""),
    "graphs/gen_step.primitive-fp32.onnx": ("graph", b""),
    "graphs/gen_step.fused-bf16.onnx": ("graph", b""),
    "graphs/weights/gen_step.fp32.data": ("weights", bytes(4000)),
    "tables/inv_freq.bin": ("table", bytes(256)),
    "samples/gen_step.npz": ("samples", b"sample"),
}


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    contract = {
        "schema": CONTRACT_SCHEMA,
        "graph": "gen_step",
        "inputs": [],
        "outputs": [],
        "sizes": {},
        "profile": {},
    }
    for name, (_, content) in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(json.dumps(contract).encode() if name.startswith("contracts/") else content)
    manifest = {
        "schema": SCHEMA,
        "model": {"family": "edge", "variant": "policy-droid", "revision": None, "config": {}, "checkpoint": {}},
        "shape_set": {"name": "droid", "canvas": [544, 736], "frames": 33, "fps": 15.0},
        "policy": {"embodiment": "droid_lerobot", "steps": 4, "guidance_interval": [960, 1001]},
        "graphs": {"gen_step": {"contract": "contracts/gen_step.json", "variants": _variants()}},
        "files": {
            name: {"sha256": sha256_file(root / name), "bytes": (root / name).stat().st_size, "role": role}
            for name, (role, _) in FILES.items()
        },
        "tables": {
            "inv_freq": {"file": "tables/inv_freq.bin", "dtype": "fp32", "shape": [64], "meaning": "frequencies"}
        },
        "samples": {
            "gen_step": {"file": "samples/gen_step.npz", "reference": "torch fp32"},
            "tick": {"none": "not enough memory"},
        },
        "notes": ["fp16 left out"],
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def _variants() -> dict[str, object]:
    return {
        "primitive-fp32": {
            "file": "graphs/gen_step.primitive-fp32.onnx",
            "weights": ["graphs/weights/gen_step.fp32.data"],
            "dialect": "primitive",
            "dtype": "fp32",
            "opset": 20,
            "facts": {"nodes": 300, "parameters": 123456},
        },
        "fused-bf16": {
            "file": "graphs/gen_step.fused-bf16.onnx",
            "weights": [],
            "dialect": "fused",
            "dtype": "bf16",
            "opset": 23,
        },
    }
